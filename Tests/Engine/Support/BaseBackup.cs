using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;
using MigrationSafety.Tests.Postgres;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>A base backup at the lowest rate there is, taken by the replication protocol itself: pg_basebackup is not in the packages. Ends when it is disposed of.</summary>
internal sealed class BaseBackup : IDisposable
{
    private readonly TcpClient _client;

    private BaseBackup(TcpClient client, int pid) => (_client, Pid) = (client, pid);

    internal int Pid { get; }

    internal static async Task<BaseBackup> StartAsync(PostgresServer server, CancellationToken cancellationToken)
    {
        TcpClient client = new();
        try
        {
            await client.ConnectAsync(server.Host, server.Port, cancellationToken);
            NetworkStream stream = client.GetStream();
            byte[] parameters = Encoding.UTF8.GetBytes("user\0postgres\0replication\0true\0\0");
            byte[] startup = new byte[8 + parameters.Length];
            BinaryPrimitives.WriteInt32BigEndian(startup, startup.Length);
            BinaryPrimitives.WriteInt32BigEndian(startup.AsSpan(4), 196608);
            parameters.CopyTo(startup, 8);
            await stream.WriteAsync(startup, cancellationToken);
            int pid = 0;
            byte[] head = new byte[5];
            do
            {
                await stream.ReadExactlyAsync(head, cancellationToken);
                byte[] body = new byte[BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(1)) - 4];
                await stream.ReadExactlyAsync(body, cancellationToken);
                switch ((char)head[0])
                {
                    case 'K':
                        pid = BinaryPrimitives.ReadInt32BigEndian(body);
                        break;
                    case 'E':
                        throw new InvalidOperationException(Encoding.UTF8.GetString(body));
                }
            }
            while (head[0] != 'Z');

            string command = server.Major >= 15
                ? "BASE_BACKUP (LABEL 'progress', PROGRESS true, CHECKPOINT 'fast', WAIT false, MAX_RATE 32)"
                : "BASE_BACKUP LABEL 'progress' PROGRESS FAST NOWAIT MAX_RATE 32";
            byte[] text = Encoding.UTF8.GetBytes(command + "\0");
            byte[] query = new byte[5 + text.Length];
            query[0] = (byte)'Q';
            BinaryPrimitives.WriteInt32BigEndian(query.AsSpan(1), 4 + text.Length);
            text.CopyTo(query, 5);
            await stream.WriteAsync(query, cancellationToken);
            return new BaseBackup(client, pid);
        }
        catch
        {
            client.Dispose();
            throw;
        }
    }

    public void Dispose() => _client.Dispose();
}
