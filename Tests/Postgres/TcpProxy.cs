using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;

namespace MigrationSafety.Tests.Postgres;

/// <summary>A TCP proxy on loopback in front of a server: the network that fails when a test wants it to.</summary>
public sealed class TcpProxy : IAsyncDisposable
{
    private readonly ConcurrentDictionary<Link, Task> _links = new();
    private readonly Lock _gate = new();
    private (string Host, int Port) _target;
    private TcpListener? _listener;
    private Task _accepting = Task.CompletedTask;
    private TaskCompletionSource? _frozen;

    private TcpProxy(string host, int port)
    {
        _target = (host, port);
        Port = ServerConfiguration.FreePort();
        Listen();
    }

    /// <summary>The port of the proxy, on 127.0.0.1.</summary>
    public int Port { get; }

    /// <summary>How many clients are connected.</summary>
    public int Connections => _links.Count;

    /// <summary>True: new connections are refused, as if no server listened. Those that exist go on.</summary>
    public bool RefuseNew
    {
        get
        {
            lock (_gate)
                return _listener is null;
        }

        set
        {
            lock (_gate)
            {
                if (value)
                {
                    _listener?.Dispose();
                    _listener = null;
                }
                else if (_listener is null)
                {
                    Listen();
                }
            }
        }
    }

    /// <summary>Starts a proxy in front of a server.</summary>
    public static TcpProxy Start(PostgresServer server)
    {
        ArgumentNullException.ThrowIfNull(server);
        return Start(server.Host, server.Port);
    }

    /// <summary>Starts a proxy in front of any TCP port.</summary>
    public static TcpProxy Start(string host, int port) => new(host, port);

    /// <summary>An Npgsql connection string through the proxy, to a database of the server behind it.</summary>
    public string ConnectionString(TestDatabase db)
    {
        ArgumentNullException.ThrowIfNull(db);
        return new Npgsql.NpgsqlConnectionStringBuilder(db.ConnectionString) { Host = "127.0.0.1", Port = Port }.ConnectionString;
    }

    /// <summary>Forwards no more bytes, in either direction; connections stay open and new ones get no answer: a cable pulled.</summary>
    public void Freeze()
    {
        lock (_gate)
            _frozen ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
    }

    /// <summary>Forwards again, what came meanwhile too.</summary>
    public void Thaw()
    {
        lock (_gate)
        {
            _frozen?.SetResult();
            _frozen = null;
        }
    }

    /// <summary>Resets all connections (RST) to both sides, frozen ones too; new ones are accepted as before.</summary>
    public void DropAll()
    {
        foreach (Link link in _links.Keys)
            link.Reset();
    }

    /// <summary>Leads new connections to another server and resets all others: the name or the address of a cluster that has failed over.</summary>
    public void RedirectTo(PostgresServer server)
    {
        ArgumentNullException.ThrowIfNull(server);
        lock (_gate)
            _target = (server.Host, server.Port);
        DropAll();
    }

    /// <summary>Stops listening and resets all connections.</summary>
    public async ValueTask DisposeAsync()
    {
        RefuseNew = true;
        await _accepting.ConfigureAwait(false);
        DropAll();
        await Task.WhenAll(_links.Values).ConfigureAwait(false);
    }

    private void Listen()
    {
        _listener = new TcpListener(IPAddress.Loopback, Port);
        _listener.Start();
        _accepting = AcceptAsync(_listener, _accepting);
    }

    private async Task AcceptAsync(TcpListener listener, Task previous)
    {
        await previous.ConfigureAwait(false);
        while (true)
        {
            try
            {
                Link link = new(await listener.AcceptSocketAsync().ConfigureAwait(false));
                // Started only when it is in the table, so that it finds itself there to leave it.
                TaskCompletionSource listed = new(TaskCreationOptions.RunContinuationsAsynchronously);
                _links[link] = ServeAsync(link, listed.Task);
                listed.SetResult();
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // The listener was closed: that is how RefuseNew and DisposeAsync end this loop.
                return;
            }
        }
    }

    private async Task ServeAsync(Link link, Task listed)
    {
        await listed.ConfigureAwait(false);
        try
        {
            await ThawedAsync(link).ConfigureAwait(false);
            (string host, int port) target;
            lock (_gate)
                target = _target;
            await link.Server.ConnectAsync(target.host, target.port).ConfigureAwait(false);
            Task[] pumps = [PumpAsync(link.Client, link.Server, link), PumpAsync(link.Server, link.Client, link)];
            try
            {
                await (await Task.WhenAny(pumps).ConfigureAwait(false)).ConfigureAwait(false);
                link.Close();
            }
            catch (SocketException)
            {
                // The peer of this one gets the reset that it got.
                link.Reset();
            }

            await Task.WhenAll(pumps).ConfigureAwait(false);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The server was never there, or the link was ended above or by DropAll; after Close this does nothing more.
            link.Reset();
        }
        finally
        {
            _links.TryRemove(link, out _);
        }
    }

    private async Task PumpAsync(Socket from, Socket to, Link link)
    {
        byte[] buffer = new byte[16 * 1024];
        int read;
        while ((read = await from.ReceiveAsync(buffer).ConfigureAwait(false)) > 0)
        {
            await ThawedAsync(link).ConfigureAwait(false);
            for (int sent = 0; sent < read;)
                sent += await to.SendAsync(buffer.AsMemory(sent, read - sent)).ConfigureAwait(false);
        }

        // A frozen network does not tell that the other side has gone either.
        await ThawedAsync(link).ConfigureAwait(false);
    }

    private async Task ThawedAsync(Link link)
    {
        while (true)
        {
            Task? frozen;
            lock (_gate)
                frozen = _frozen?.Task;
            // The sockets of a link that has ended tell so themselves.
            if (frozen is null || link.Ended.IsCompleted)
                return;

            await Task.WhenAny(frozen, link.Ended).ConfigureAwait(false);
        }
    }

    private sealed class Link
    {
        private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public Link(Socket client)
        {
            Client = client;
            Client.NoDelay = Server.NoDelay = true;
        }

        public Socket Client { get; }

        public Socket Server { get; } = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);

        public Task Ended => _ended.Task;

        /// <summary>What is still on its way arrives.</summary>
        public void Close()
        {
            Client.Dispose();
            Server.Dispose();
            _ended.TrySetResult();
        }

        /// <summary>Lingering for no time is how a socket is closed with a reset.</summary>
        public void Reset()
        {
            Client.Close(0);
            Server.Close(0);
            _ended.TrySetResult();
        }
    }
}
