using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace MigrationSafety.Tests.Postgres;

/// <summary>A root certificate of this server alone, and the server's certificate signed by it.</summary>
internal static class TlsFiles
{
    public const string Root = "root.crt";
    public const string Certificate = "server.crt";
    public const string Key = "server.key";

    /// <summary>Writes the three files.</summary>
    public static void Write(string directory, bool expired)
    {
        DateTimeOffset now = DateTimeOffset.UtcNow;
        using ECDsa rootKey = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        CertificateRequest rootRequest = new("CN=MigrationSafety tests", rootKey, HashAlgorithmName.SHA256);
        rootRequest.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        rootRequest.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.CrlSign, true));
        using X509Certificate2 root = rootRequest.CreateSelfSigned(now.AddDays(-10), now.AddDays(10));

        using ECDsa key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        CertificateRequest request = new("CN=localhost", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid("1.3.6.1.5.5.7.3.1")], false));
        SubjectAlternativeNameBuilder names = new();
        names.AddDnsName("localhost");
        names.AddIpAddress(IPAddress.Loopback);
        request.CertificateExtensions.Add(names.Build());
        using X509Certificate2 certificate = request.Create(
            root, now.AddDays(-5), expired ? now.AddDays(-1) : now.AddDays(5), RandomNumberGenerator.GetBytes(8));

        File.WriteAllText(Path.Combine(directory, Root), root.ExportCertificatePem());
        File.WriteAllText(Path.Combine(directory, Certificate), certificate.ExportCertificatePem());
        string keyPath = Path.Combine(directory, Key);
        File.WriteAllText(keyPath, key.ExportPkcs8PrivateKeyPem());
        // PostgreSQL refuses a key that others may read.
        if (!OperatingSystem.IsWindows())
            File.SetUnixFileMode(keyPath, UnixFileMode.UserRead | UnixFileMode.UserWrite);
    }
}
