using System.Security.Cryptography.X509Certificates;
using Npgsql;

namespace MigrationSafety.Engine.Sessions;

/// <summary>
/// Finds out what is wrong with a server's certificate. Npgsql checks it and says no more than that it was rejected; so the handshake is made once more, looked
/// at, and broken off before anything of a login is sent.
/// </summary>
internal static class CertificateInspector
{
    /// <summary>Why, as the end of a sentence, and what to do; null where no certificate came or nothing is wrong with it.</summary>
    internal static async Task<(string Why, string Advice)?> FindFlawAsync(ConnectionHost host, CancellationToken cancellationToken)
    {
        X509Certificate2Collection seen = [];
        NpgsqlConnectionStringBuilder settings = new(host.Settings.ConnectionString) { Pooling = false, SslMode = SslMode.Require };
        bool checksName = host.Settings.SslMode == SslMode.VerifyFull;
        string? root = settings.RootCertificate;
        settings.RootCertificate = null;
        NpgsqlDataSourceBuilder builder = new(settings.ConnectionString);
        builder.UsePasswordProvider(_ => string.Empty, (_, _) => new(string.Empty));
        builder.UseSslClientAuthenticationOptionsCallback(options => options.RemoteCertificateValidationCallback = (_, certificate, chain, _) =>
        {
            if (certificate is not null)
            {
                seen.Add(new X509Certificate2(certificate.GetRawCertData()));
                foreach (X509ChainElement element in chain?.ChainElements.Skip(1) ?? [])
                {
                    seen.Add(new X509Certificate2(element.Certificate.GetRawCertData()));
                }
            }

            return false;
        });
        await using NpgsqlDataSource dataSource = builder.Build();
        try
        {
            await using NpgsqlConnection connection = await dataSource.OpenConnectionAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is NpgsqlException or TimeoutException)
        {
            // It must fail: the callback says no. What matters is what it has seen.
        }

        return seen.Count == 0 ? null : Judge(seen, root, checksName ? host.TlsName ?? host.Settings.Host! : null);
    }

    private static (string Why, string Advice)? Judge(X509Certificate2Collection seen, string? root, string? name)
    {
        X509Certificate2 certificate = seen[0];
        DateTime now = DateTime.Now;
        if (certificate.NotAfter < now)
        {
            return ($"it expired on {certificate.NotAfter:yyyy-MM-dd}", "Renew the server's certificate and reload the server (pg_ctl reload).");
        }

        if (certificate.NotBefore > now)
        {
            return ($"it is not valid before {certificate.NotBefore:yyyy-MM-dd}", "Check the clocks of server and client, and the server's certificate.");
        }

        using X509Chain chain = new();
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        chain.ChainPolicy.ExtraStore.AddRange(seen);
        if (root is not null)
        {
            chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
            chain.ChainPolicy.CustomTrustStore.ImportFromPemFile(root);
        }

        if (!chain.Build(certificate))
        {
            X509ChainStatusFlags flags = chain.ChainStatus.Aggregate(X509ChainStatusFlags.NoError, (all, s) => all | s.Status);
            string issuer = certificate.Issuer;
            return (flags & (X509ChainStatusFlags.UntrustedRoot | X509ChainStatusFlags.PartialChain)) != 0
                ? ($"its issuer '{issuer}' is unknown, neither in {root ?? "the system's store"} nor signed by one that is", "Name the certificate of the authority by sslrootcert (or PGSSLROOTCERT), and check that it is this server's.")
                : ($"its chain is not in order ({flags})", "Renew the certificates between the server's and the authority's.");
        }

        return name is not null && !certificate.MatchesHostname(name)
            ? ($"it is made out for {Names(certificate)}, not for '{name}'", "Connect by a name that the certificate has, have one made for this name, or use sslmode=verify-ca, which does not compare names.")
            : null;
    }

    private static string Names(X509Certificate2 certificate)
    {
        string[] names =
        [
            .. certificate.Extensions.OfType<X509SubjectAlternativeNameExtension>().SelectMany(e => e.EnumerateDnsNames().Concat(e.EnumerateIPAddresses().Select(a => a.ToString()))),
        ];
        return names.Length > 0 ? string.Join(", ", names) : certificate.Subject;
    }
}
