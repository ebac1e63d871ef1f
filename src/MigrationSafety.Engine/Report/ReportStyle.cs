namespace MigrationSafety.Engine.Report;

/// <summary>How the report looks: on a phone, on a desk, in the dark and on paper.</summary>
internal static class ReportStyle
{
    internal const string Css = """

        :root {
          color-scheme: light dark;
          --page: #f4f6f8; --card: #ffffff; --ink: #17202b; --soft: #55606e; --line: #d9dfe6; --track: #eceff3; --code: #f4f6f8;
          --blue: #1d5fc2; --blue-soft: #a9c7f2; --wait: #b25b00; --wait-soft: #f6dfc2; --good: #17713f; --bad: #b3261e; --idle: #6b7683;
        }
        @media (prefers-color-scheme: dark) {
          :root {
            --page: #0f141a; --card: #171e26; --ink: #e4e9f0; --soft: #9eabba; --line: #2d3843; --track: #242e38; --code: #10161d;
            --blue: #6fa8ff; --blue-soft: #2c4a75; --wait: #f2a653; --wait-soft: #4a3417; --good: #4fc384; --bad: #ff867d; --idle: #8d99a7;
          }
        }
        * { box-sizing: border-box; }
        html { -webkit-text-size-adjust: 100%; }
        body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
        main { max-width: 64rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
        h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; letter-spacing: -0.01em; }
        h2 { font-size: 1.2rem; line-height: 1.3; margin: 0; overflow-wrap: anywhere; }
        h3 { font-size: 0.95rem; margin: 1.8rem 0 0.6rem; }
        p { margin: 0.4rem 0; }
        a { color: var(--blue); }
        header, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.25rem; margin: 0 0 1rem; }
        header p.sub { color: var(--soft); margin: 0.2rem 0 1rem; }
        .head { display: flex; flex-wrap: wrap; gap: 0.4rem 0.8rem; align-items: baseline; justify-content: space-between; }
        .head + p.sub { color: var(--soft); font-size: 0.9rem; }
        .badge { font-size: 0.8rem; font-weight: 650; border: 1px solid currentColor; border-radius: 99px; padding: 0.05rem 0.6rem; white-space: nowrap; }
        .good { color: var(--good); } .bad { color: var(--bad); } .idle { color: var(--soft); } .busy { color: var(--blue); } .warn { color: var(--wait); }
        dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr)); gap: 0.8rem 1.2rem; margin: 0.9rem 0 0; }
        dl.facts div { min-width: 0; }
        dt { color: var(--soft); font-size: 0.8rem; }
        dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
        .error { border-left: 4px solid var(--bad); padding: 0.1rem 0 0.1rem 0.8rem; margin: 1rem 0 0; overflow-wrap: anywhere; }
        figure { margin: 1.4rem 0 0; }
        figcaption { font-size: 0.95rem; margin-bottom: 0.5rem; }
        figcaption span { display: block; color: var(--soft); font-size: 0.85rem; }
        .note { color: var(--soft); font-size: 0.85rem; }
        .plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 2rem; }
        .chart { display: grid; grid-template-columns: 4.2rem minmax(0, 1fr); grid-template-rows: 8.5rem 1.5rem; margin-top: 1.1rem; }
        .y, .x, .field { position: relative; min-width: 0; }
        .field { overflow: visible; }
        .chart > .x { grid-column: 2; }
        .chart svg { display: block; width: 100%; height: 100%; }
        .y span, .x span { position: absolute; color: var(--soft); font-size: 0.75rem; line-height: 1; white-space: nowrap; font-variant-numeric: tabular-nums; }
        .y span { right: 0.5rem; transform: translateY(-50%); }
        .x span { top: 0.35rem; transform: translateX(-50%); }
        .x span.first { transform: none; } .x span.last { transform: translateX(-100%); }
        .beyond { position: absolute; top: -0.95rem; transform: translateX(-50%); color: var(--wait); font-size: 0.7rem; line-height: 1; }
        .grid { stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
        .area { fill: var(--blue); fill-opacity: 0.35; } .range { fill: var(--blue-soft); fill-opacity: 0.55; }
        .edge { fill: none; stroke: var(--blue); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
        .chart .wait { fill: var(--wait-soft); }
        .row { display: grid; grid-template-columns: minmax(0, 17rem) minmax(0, 1fr) 5.5rem; gap: 0.15rem 0.8rem; align-items: center; margin: 0.35rem 0; font-size: 0.88rem; }
        .row .label { overflow-wrap: anywhere; line-height: 1.35; }
        .row .time { order: 3; text-align: right; color: var(--soft); font-variant-numeric: tabular-nums; white-space: nowrap; }
        .row svg { order: 2; display: block; width: 100%; height: 0.95rem; border-radius: 3px; }
        .row.axis { margin: 0; } .row.axis .x { grid-column: 2; height: 1.2rem; }
        .track { fill: var(--track); } .rows .done { fill: var(--blue); } .rows .failed { fill: var(--bad); } .rows .ended { fill: var(--idle); }
        .rows .wait { fill: var(--wait); } .rows .phase0 { fill: var(--blue); } .rows .phase1 { fill: var(--idle); }
        .legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; margin: 0.5rem 0 0; padding: 0; list-style: none; color: var(--soft); font-size: 0.82rem; }
        .legend i { display: inline-block; width: 0.75rem; height: 0.75rem; border-radius: 2px; margin-right: 0.4rem; vertical-align: -0.05rem; }
        i.done { background: var(--blue); } i.failed { background: var(--bad); } i.wait { background: var(--wait); } i.ended { background: var(--idle); }
        ol.list { list-style: none; margin: 0.6rem 0 0; padding: 0; }
        ol.list > li { border-top: 1px solid var(--line); padding: 0.8rem 0; }
        ol.list > li:last-child { padding-bottom: 0; }
        .meta { color: var(--soft); font-size: 0.85rem; overflow-wrap: anywhere; }
        pre { background: var(--code); border: 1px solid var(--line); border-radius: 6px; padding: 0.6rem 0.75rem; margin: 0.4rem 0; white-space: pre-wrap; overflow-wrap: anywhere; tab-size: 4; }
        pre, code { font: 0.84rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
        .back { color: var(--soft); font-size: 0.8rem; margin: 0.5rem 0 0; }
        footer { color: var(--soft); font-size: 0.82rem; padding: 0 0.2rem; overflow-wrap: anywhere; }
        @media (max-width: 40rem) {
          main { padding: 0.75rem 0.6rem 2rem; }
          header, section { padding: 1rem 0.9rem; border-radius: 8px; }
          dl.facts { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0.6rem 1rem; }
          .row { grid-template-columns: minmax(0, 1fr) auto; }
          .row .time { order: 0; } .row svg { order: 0; grid-column: 1 / -1; } .row.axis .x { grid-column: 1 / -1; }
          .chart { grid-template-columns: 3.6rem minmax(0, 1fr); grid-template-rows: 7rem 1.5rem; }
        }
        @media print {
          :root {
            color-scheme: light;
            --page: #ffffff; --card: #ffffff; --ink: #17202b; --soft: #55606e; --line: #c9d0d8; --track: #eceff3; --code: #ffffff;
            --blue: #1d5fc2; --blue-soft: #a9c7f2; --wait: #b25b00; --wait-soft: #f6dfc2; --good: #17713f; --bad: #b3261e; --idle: #6b7683;
          }
          @page { margin: 15mm; }
          body { font-size: 10pt; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
          main { max-width: none; padding: 0; }
          header, section { border: 0; border-radius: 0; padding: 0; margin: 0 0 8mm; }
          section { border-top: 1px solid var(--line); padding-top: 4mm; }
          figure, .row, ol.list > li { break-inside: avoid; }
          h2, h3, figcaption { break-after: avoid; }
        }

        """;
}
