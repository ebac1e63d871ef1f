namespace MigrationSafety.Tests.Postgres;

/// <summary>
/// A lock between processes: a file opened for oneself alone (flock on Unix). The system releases it when the process ends, however
/// it ends; therefore a lock that is free tells that its owner is gone.
/// </summary>
internal sealed class FileLock : IDisposable
{
    private readonly FileStream _stream;

    private FileLock(FileStream stream) => _stream = stream;

    public static async Task<FileLock> AcquireAsync(string path, CancellationToken cancellationToken)
    {
        FileLock? taken = null;
        await Wait.UntilAsync(() => (taken = TryAcquire(path)) is not null, $"the lock '{path}', which another process holds",
            TimeSpan.FromMinutes(5), cancellationToken).ConfigureAwait(false);
        return taken!;
    }

    /// <summary>Null when another process holds it.</summary>
    public static FileLock? TryAcquire(string path, FileMode mode = FileMode.OpenOrCreate)
    {
        try
        {
            return new FileLock(new FileStream(path, mode, FileAccess.ReadWrite, FileShare.None));
        }
        catch (IOException) when (File.Exists(path))
        {
            return null;
        }
    }

    public void Dispose() => _stream.Dispose();
}
