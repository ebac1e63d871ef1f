using MigrationSafety.Engine.Rollback.Formats;

namespace MigrationSafety.Engine.Rollback.Writing;

/// <summary>Sqitch's files: revert/name.sql, with deploy/name.sql beside it where the migration is another tool's. psql runs them, and they open their transactions themselves.</summary>
internal static class SqitchLayout
{
    internal static RollbackLayout Of(LayoutRequest request)
    {
        string change = request.IsOwn && SqitchTool.Change(request.File!.Source) is { } own ? own.Name : request.Name.Title.Length == 0 ? request.Name.Version : request.Name.Title;
        string text = $"-- Revert {change} from pg\n\n{request.Head}" + string.Concat(request.Segments.Select(Write));
        List<OutputFile> files = [new OutputFile($"revert/{change}.sql", text)];
        if (request.IsOwn)
        {
            return new RollbackLayout(files, []);
        }

        List<ForwardSegment> forward = request.Forward;
        string up = forward.Count == 0 ? request.Told("") : string.Concat(forward.Select(s => s.Transactional ? $"BEGIN;\n{s.Text}COMMIT;\n" : s.Text));
        files.Add(new OutputFile($"deploy/{change}.sql", $"-- Deploy {change} to pg\n\n{up}"));
        return new RollbackLayout(files, [$"{change} is not in sqitch.plan: sqitch add {change} -n '...' adds it, and keeps the scripts that are there."]);
    }

    private static string Write(RollbackSegment segment) => !segment.Runs ? RollbackBody.InTransaction(segment)
        : segment.Transactional ? $"BEGIN;\n{RollbackBody.InTransaction(segment)}COMMIT;\n\n"
        : $"SET lock_timeout = 0;\nSET statement_timeout = 0;\n{RollbackBody.Each(segment, (text, sql) => text.Append(sql).AppendLf(";"))}\n";
}
