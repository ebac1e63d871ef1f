using System.Text;
using System.Text.Json.Nodes;
using MigrationSafety.Engine.Report;
using MigrationSafety.Tests.Engine.Support;
using Xunit;

namespace MigrationSafety.Tests.Engine;

/// <summary>The report in a real browser. MIGRATIONSAFETY_TEST_SCREENSHOTS names a folder for pictures of what was tested.</summary>
public sealed class ReportBrowserTests : IAsyncDisposable
{
    /// <summary>The elements with text whose contrast to what is behind them is less than it should be (WCAG 2, level AA), in words.</summary>
    private const string LowContrast = """
        (() => {
          const parse = c => { const n = c.match(/[\d.]+/g).map(Number); return { r: n[0], g: n[1], b: n[2], a: n.length > 3 ? n[3] : 1 }; };
          const light = c => { const f = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }; return 0.2126 * f(c.r) + 0.7152 * f(c.g) + 0.0722 * f(c.b); };
          const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
          const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.a > 0) return c; } return { r: 255, g: 255, b: 255, a: 1 }; };
          const bad = [];
          for (const e of document.body.querySelectorAll('*')) {
            if (e.namespaceURI === 'http://www.w3.org/2000/svg') {
              if (e.matches('.done, .failed, .ended, .rows .wait')) {
                const style = getComputedStyle(e), r = ratio(parse(style.fill), behind(e.closest('svg').parentElement));
                if (r < 3) bad.push(`${e.getAttribute('class')}: ${r.toFixed(2)}`);
              }
              continue;
            }
            if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
            const r = ratio(parse(getComputedStyle(e).color), behind(e));
            if (r < 4.5) bad.push(`${e.tagName}.${e.className} "${e.textContent.trim().slice(0, 30)}": ${r.toFixed(2)}`);
          }
          return [...new Set(bad)];
        })()
        """;

    /// <summary>Elements that reach beyond the right edge of the window.</summary>
    private const string TooWide = """
        [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => `${e.tagName}.${e.getAttribute('class')} ${e.textContent.trim().slice(0, 30)}`).slice(0, 5)
        """;

    /// <summary>Labels of an axis that lie over each other.</summary>
    private const string Overlapping = """
        [...document.querySelectorAll('.x, .y')].flatMap(axis => {
          const boxes = [...axis.children].map(e => e.getBoundingClientRect());
          return boxes.slice(1).filter((b, i) => b.left < boxes[i].right && b.right > boxes[i].left && b.top < boxes[i].bottom && b.bottom > boxes[i].top).map(() => axis.textContent);
        })
        """;

    private readonly string _file = Path.Combine(Path.GetTempPath(), $"{Guid.NewGuid()}.html");

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public ValueTask DisposeAsync()
    {
        File.Delete(_file);
        return ValueTask.CompletedTask;
    }

    [Theory]
    [InlineData("ticket", 360, "light")]
    [InlineData("ticket", 360, "dark")]
    [InlineData("ticket", 1280, "light")]
    [InlineData("ticket", 1280, "dark")]
    [InlineData("one-sample", 360, "light")]
    [InlineData("many-samples", 360, "dark")]
    [InlineData("many-samples", 1280, "light")]
    public async Task It_is_shown_whole_and_can_be_read(string name, int width, string scheme)
    {
        Assert.SkipWhen(Browser.Missing is not null, Browser.Missing ?? "");
        await File.WriteAllTextAsync(_file, Report(name), Token);
        await using Browser browser = await Browser.StartAsync(Token);
        await browser.OpenAsync(_file, width, scheme, Token);
        await SaveAsync(browser, $"{name}-{width}-{scheme}");

        // Nothing was asked of the network, and nothing went wrong.
        string[] requests = [.. browser.Events.Where(e => (string?)e["method"] == "Network.requestWillBeSent").Select(e => (string)e["params"]!["request"]!["url"]!)];
        Assert.Equal(new Uri(_file).AbsoluteUri, Assert.Single(requests));
        Assert.DoesNotContain(browser.Events, e => (string?)e["method"] is "Log.entryAdded" or "Runtime.consoleAPICalled" or "Runtime.exceptionThrown");
        Assert.Null(await browser.EvaluateAsync("window.harm === undefined ? null : window.harm", Token));
        Assert.Equal("CSS1Compat", (string?)await browser.EvaluateAsync("document.compatMode", Token));

        Assert.Equal(width, (int)(await browser.EvaluateAsync("document.documentElement.scrollWidth", Token))!);
        Assert.Empty(Texts(await browser.EvaluateAsync(TooWide, Token)));
        Assert.Empty(Texts(await browser.EvaluateAsync(Overlapping, Token)));
        Assert.Empty(Texts(await browser.EvaluateAsync(LowContrast, Token)));
        Assert.Equal(scheme == "dark", (bool)(await browser.EvaluateAsync("parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]) < 128", Token))!);

        // Every picture has a name and room.
        Assert.Empty(Texts(await browser.EvaluateAsync(
            "[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width < 100 || s.getBoundingClientRect().height < 8 || !(s.getAttribute('aria-label') || document.getElementById(s.getAttribute('aria-labelledby').split(' ')[0])?.textContent)).map(s => s.outerHTML.slice(0, 80))",
            Token)));
    }

    [Fact]
    public async Task The_shapes_have_the_sizes_of_the_data()
    {
        Assert.SkipWhen(Browser.Missing is not null, Browser.Missing ?? "");
        await File.WriteAllTextAsync(_file, MigrationReport.Write("x", [ReportTests.Index()], DateTimeOffset.UtcNow), Token);
        await using Browser browser = await Browser.StartAsync(Token);
        foreach (int width in new[] { 360, 1280 })
        {
            await browser.OpenAsync(_file, width, "light", Token);
            // The step took 40 s, and waited for 10 of them from the fourth on.
            JsonNode sizes = (await browser.EvaluateAsync(
                """
                (() => {
                  const row = document.querySelector('.row svg'), box = e => e.getBoundingClientRect(), all = box(row), done = box(row.querySelector('.done')), wait = box(row.querySelector('.wait'));
                  return [done.width / all.width, wait.width / all.width, (wait.left - all.left) / all.width];
                })()
                """,
                Token))!;
            Assert.Equal([1, 0.25, 0.1], sizes.AsArray().Select(size => Math.Round((double)size!, 2)));
        }
    }

    [Fact]
    public async Task It_prints_in_dark_ink_on_white_paper()
    {
        Assert.SkipWhen(Browser.Missing is not null, Browser.Missing ?? "");
        await File.WriteAllTextAsync(_file, Report("ticket"), Token);
        await using Browser browser = await Browser.StartAsync(Token);
        // Whose screen is dark prints on white paper all the same.
        await browser.OpenAsync(_file, 680, "dark", Token, media: "print");
        await SaveAsync(browser, "print");
        Assert.Equal("rgb(255, 255, 255)", (string?)await browser.EvaluateAsync("getComputedStyle(document.body).backgroundColor", Token));
        Assert.Empty(Texts(await browser.EvaluateAsync(LowContrast, Token)));
        Assert.Empty(Texts(await browser.EvaluateAsync(TooWide, Token)));
        byte[] pdf = await browser.PrintAsync(Token);
        Assert.Equal("%PDF", Encoding.ASCII.GetString(pdf, 0, 4));
    }

    private static string Report(string name) => MigrationReport.Write(
        "Change 1234",
        name switch
        {
            "ticket" => [ReportTests.Index(), ReportTests.Fill(200, withGaps: true, withOutlier: true), ReportTests.Failure()],
            "one-sample" => [ReportTests.Fill(1)],
            _ => [ReportTests.Fill(5000, withOutlier: true)],
        },
        new DateTimeOffset(2026, 11, 21, 6, 0, 0, TimeSpan.Zero));

    private static string[] Texts(JsonNode? node) => [.. node!.AsArray().Select(item => (string)item!)];

    private static async Task SaveAsync(Browser browser, string name)
    {
        if (Environment.GetEnvironmentVariable("MIGRATIONSAFETY_TEST_SCREENSHOTS") is { Length: > 0 } folder)
        {
            await File.WriteAllBytesAsync(Path.Combine(folder, $"{name}.png"), await browser.CaptureAsync(Token), Token);
        }
    }
}
