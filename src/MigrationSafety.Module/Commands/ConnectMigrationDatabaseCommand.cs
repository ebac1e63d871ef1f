using System.Management.Automation;
using MigrationSafety.Engine.Sessions;
using MigrationSafety.Module.Pipeline;

namespace MigrationSafety.Module.Commands;

/// <summary>Connects to a database and makes the session the runspace's current one.</summary>
[Cmdlet(VerbsCommunications.Connect, "MigrationDatabase")]
[OutputType(typeof(MigrationSession))]
public sealed class ConnectMigrationDatabaseCommand : MigrationCmdlet
{
    /// <summary>Key=value string, <c>postgresql://</c> URI or <c>service=NAME</c>; what it leaves out comes from the libpq environment.</summary>
    [Parameter(Position = 0, ValueFromPipeline = true)]
    [ValidateNotNull]
    public ConnectionArgument? Connection { get; set; }

    /// <summary>Host name, address or socket directory; wins over <see cref="Connection"/>.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [Alias("HostName", "ComputerName")]
    [ValidateNotNullOrEmpty]
    public string? Server { get; set; }

    /// <summary>Port.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [ValidateRange(1, 65535)]
    public int? Port { get; set; }

    /// <summary>Database.</summary>
    [Parameter(ValueFromPipelineByPropertyName = true)]
    [ValidateNotNullOrEmpty]
    public string? Database { get; set; }

    /// <summary>User and password.</summary>
    [Parameter]
    [ValidateNotNull]
    [Credential]
    public PSCredential? Credential { get; set; }

    /// <summary>TLS mode, as in libpq.</summary>
    [Parameter]
    [ValidateSet("disable", "allow", "prefer", "require", "verify-ca", "verify-full")]
    public string? SslMode { get; set; }

    /// <summary>How long the server may take to answer.</summary>
    [Parameter]
    [ValidateNotNull]
    public Duration? ConnectTimeout { get; set; }

    /// <inheritdoc />
    protected override void ProcessRecord()
    {
        try
        {
            MigrationSession session = Runner.Wait((sink, token) => SessionFactory.ConnectAsync(
                ConnectRequests.Of(Connection?.Text, Credential) with
                {
                    Host = Server,
                    Port = Port,
                    Database = Database,
                    SslMode = SslMode,
                    ConnectTimeout = ConnectTimeout?.Value,
                },
                sink,
                token));
            RunspaceSessions.Here.Add(session);
            WriteObject(session);
        }
        catch (MigrationException e)
        {
            WriteError(ErrorRecords.Of(e));
        }
    }
}
