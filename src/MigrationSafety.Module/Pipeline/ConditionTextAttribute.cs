using System.Collections;
using System.Management.Automation;

namespace MigrationSafety.Module.Pipeline;

/// <summary>Refuses what PowerShell would turn into the name of its type: a hashtable meant for -Set, which -Delete and -InsertInto do not have, comes here by its position.</summary>
[AttributeUsage(AttributeTargets.Property)]
internal sealed class ConditionTextAttribute : ArgumentTransformationAttribute
{
    public override object Transform(EngineIntrinsics engineIntrinsics, object inputData)
    {
        object? given = inputData is PSObject wrapped ? wrapped.BaseObject : inputData;
        return given is IEnumerable and not string
            ? throw new ArgumentTransformationMetadataException($"-Where: a {given.GetType().Name} is no condition. Write it as text, as in SQL: -Where 'tier is null'. Columns to expressions go to -Set, or, where rows are copied with -InsertInto, to -Select; -Delete takes none.")
            : inputData;
    }
}
