using System.Management.Automation;

namespace MigrationSafety.Module.Pipeline;

/// <summary>Failures as PowerShell's error records: stable id, category, target object and recommended action.</summary>
internal static class ErrorRecords
{
    internal static ErrorRecord Of(Exception exception) => exception is MigrationException e
        ? new ErrorRecord(e, e.ErrorId, Category(e.Kind), e.Target)
        {
            ErrorDetails = new ErrorDetails(e.Message) { RecommendedAction = e.RecommendedAction },
        }
        : new ErrorRecord(exception, "UnexpectedError", ErrorCategory.NotSpecified, null);

    private static ErrorCategory Category(MigrationErrorKind kind) => kind switch
    {
        MigrationErrorKind.InvalidInput => ErrorCategory.InvalidArgument,
        MigrationErrorKind.NotFound => ErrorCategory.ObjectNotFound,
        MigrationErrorKind.Busy => ErrorCategory.ResourceBusy,
        MigrationErrorKind.Timeout => ErrorCategory.OperationTimeout,
        MigrationErrorKind.Connection => ErrorCategory.ConnectionError,
        MigrationErrorKind.Authentication => ErrorCategory.AuthenticationError,
        MigrationErrorKind.Permission => ErrorCategory.PermissionDenied,
        MigrationErrorKind.InvalidData => ErrorCategory.InvalidData,
        MigrationErrorKind.NotSupported => ErrorCategory.NotImplemented,
        MigrationErrorKind.InvalidState => ErrorCategory.InvalidOperation,
        MigrationErrorKind.Resource => ErrorCategory.ResourceUnavailable,
        MigrationErrorKind.Stopped => ErrorCategory.OperationStopped,
        _ => ErrorCategory.NotSpecified,
    };
}
