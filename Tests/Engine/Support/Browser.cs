using System.Diagnostics;
using System.Net.WebSockets;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace MigrationSafety.Tests.Engine.Support;

/// <summary>A headless Chromium, spoken to by its DevTools protocol on the loopback interface.</summary>
internal sealed class Browser : IAsyncDisposable
{
    private static readonly string? s_path = Find();

    private readonly Process _process;
    private readonly ClientWebSocket _socket = new();
    private readonly string _profile;
    private readonly List<JsonNode> _events = [];
    private int _lastId;
    private string? _page;

    private Browser(Process process, string profile)
    {
        _process = process;
        _profile = profile;
    }

    /// <summary>Why a test that needs a browser cannot run; null where it can.</summary>
    internal static string? Missing => s_path is null ? "There is no Chromium (chromium, google-chrome or msedge) on PATH." : null;

    /// <summary>What the page has told since it was opened: requests, console, errors.</summary>
    internal IReadOnlyList<JsonNode> Events => _events;

    internal static async Task<Browser> StartAsync(CancellationToken cancellationToken)
    {
        string profile = Directory.CreateTempSubdirectory("browser").FullName;
        // Its sandbox needs rights that a container or root does not give; the page is our own.
        ProcessStartInfo start = new(
            s_path!,
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check", "--disable-background-networking", "--hide-scrollbars", "--remote-debugging-port=0", $"--user-data-dir={profile}", "about:blank"])
        {
            RedirectStandardError = true,
            RedirectStandardOutput = true,
        };
        Browser browser = new(Process.Start(start)!, profile);
        try
        {
            using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            limit.CancelAfter(TimeSpan.FromSeconds(60));
            StringBuilder said = new();
            while (await browser._process.StandardError.ReadLineAsync(limit.Token) is { } line)
            {
                said.AppendLine(line);
                if (line.StartsWith("DevTools listening on ", StringComparison.Ordinal))
                {
                    _ = browser._process.StandardError.ReadToEndAsync(CancellationToken.None);
                    _ = browser._process.StandardOutput.ReadToEndAsync(CancellationToken.None);
                    await browser._socket.ConnectAsync(new Uri(line["DevTools listening on ".Length..]), limit.Token);
                    return browser;
                }
            }

            throw new InvalidOperationException($"The browser ended at once: {said}");
        }
        catch
        {
            await browser.DisposeAsync();
            throw;
        }
    }

    /// <summary>Opens a file in a page of a width and a colour scheme, on a screen or on paper, and waits until it is loaded.</summary>
    internal async Task OpenAsync(string file, int width, string scheme, CancellationToken cancellationToken, string media = "screen")
    {
        _page = null;
        _events.Clear();
        string target = (string)(await SendAsync("Target.createTarget", new() { ["url"] = "about:blank" }, cancellationToken))["targetId"]!;
        _page = (string)(await SendAsync("Target.attachToTarget", new() { ["targetId"] = target, ["flatten"] = true }, cancellationToken))["sessionId"]!;
        foreach (string domain in new[] { "Page", "Runtime", "Log", "Network" })
        {
            await SendAsync($"{domain}.enable", [], cancellationToken);
        }

        await SendAsync("Emulation.setDeviceMetricsOverride", new() { ["width"] = width, ["height"] = 900, ["deviceScaleFactor"] = 1, ["mobile"] = width < 600 }, cancellationToken);
        await SendAsync("Emulation.setEmulatedMedia", new() { ["media"] = media, ["features"] = new JsonArray(new JsonObject { ["name"] = "prefers-color-scheme", ["value"] = scheme }) }, cancellationToken);
        await SendAsync("Page.navigate", new() { ["url"] = new Uri(file).AbsoluteUri }, cancellationToken);
        while (!_events.Any(e => (string?)e["method"] == "Page.loadEventFired"))
        {
            await ReceiveAsync(cancellationToken);
        }
    }

    /// <summary>What an expression says in the page.</summary>
    internal async Task<JsonNode?> EvaluateAsync(string expression, CancellationToken cancellationToken)
    {
        JsonNode answer = await SendAsync("Runtime.evaluate", new() { ["expression"] = expression, ["returnByValue"] = true }, cancellationToken);
        return answer["exceptionDetails"] is { } failure ? throw new InvalidOperationException(failure.ToJsonString()) : answer["result"]!["value"];
    }

    /// <summary>A picture of the whole page.</summary>
    internal async Task<byte[]> CaptureAsync(CancellationToken cancellationToken) =>
        Convert.FromBase64String((string)(await SendAsync("Page.captureScreenshot", new() { ["captureBeyondViewport"] = true }, cancellationToken))["data"]!);

    /// <summary>The page as it would be printed.</summary>
    internal async Task<byte[]> PrintAsync(CancellationToken cancellationToken) =>
        Convert.FromBase64String((string)(await SendAsync("Page.printToPDF", new() { ["printBackground"] = true, ["preferCSSPageSize"] = true }, cancellationToken))["data"]!);

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            _process.Kill(entireProcessTree: true);
            await _process.WaitForExitAsync();
        }

        _socket.Dispose();
        _process.Dispose();
        for (int attempt = 0; Directory.Exists(_profile) && attempt < 20; attempt++)
        {
            try
            {
                Directory.Delete(_profile, recursive: true);
            }
            catch (IOException)
            {
                // A child of the browser writes its last.
                await Task.Delay(50);
            }
        }
    }

    private static string? Find() =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries)
        .SelectMany(folder => new[] { "chromium", "chromium-browser", "google-chrome", "chrome", "msedge" }.Select(name => Path.Combine(folder, OperatingSystem.IsWindows() ? name + ".exe" : name)))
        .FirstOrDefault(File.Exists);

    private async Task<JsonNode> SendAsync(string method, JsonObject parameters, CancellationToken cancellationToken)
    {
        int id = ++_lastId;
        JsonObject message = new() { ["id"] = id, ["method"] = method, ["params"] = parameters };
        if (_page is not null)
        {
            message["sessionId"] = _page;
        }

        await _socket.SendAsync(Encoding.UTF8.GetBytes(message.ToJsonString()), WebSocketMessageType.Text, endOfMessage: true, cancellationToken);
        while (true)
        {
            JsonNode received = await ReceiveAsync(cancellationToken);
            if ((int?)received["id"] == id)
            {
                return received["result"] ?? throw new InvalidOperationException($"{method}: {received["error"]?.ToJsonString()}");
            }
        }
    }

    private async Task<JsonNode> ReceiveAsync(CancellationToken cancellationToken)
    {
        using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(TimeSpan.FromSeconds(60));
        using MemoryStream message = new();
        byte[] buffer = new byte[65536];
        WebSocketReceiveResult part;
        do
        {
            part = await _socket.ReceiveAsync(buffer, limit.Token);
            message.Write(buffer, 0, part.Count);
        }
        while (!part.EndOfMessage);

        JsonNode received = JsonNode.Parse(message.ToArray()) ?? throw new JsonException("The browser sent nothing.");
        if (received["method"] is not null)
        {
            _events.Add(received);
        }

        return received;
    }
}
