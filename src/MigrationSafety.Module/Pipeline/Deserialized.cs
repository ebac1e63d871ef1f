using System.Collections;
using System.Globalization;
using System.Management.Automation;
using System.Reflection;

namespace MigrationSafety.Module.Pipeline;

/// <summary>Results that came through a job, a remote session or a file, made again what they were.</summary>
internal static class Deserialized
{
    /// <summary>The result; null where the object was none of this type.</summary>
    /// <exception cref="MigrationException"><c>InputNotUnderstood</c>: its parts were cut off on the way.</exception>
    internal static T? Of<T>(PSObject input)
        where T : class
    {
        try
        {
            return Was(input, typeof(T)) ? (T)Make(input, typeof(T)) : null;
        }
        catch (PSInvalidCastException e)
        {
            throw new MigrationException(
                "InputNotUnderstood",
                MigrationErrorKind.InvalidInput,
                $"A {typeof(T).Name} lost its parts on the way through a job or a file.",
                "Import MigrationSafety where it is read, in the version that is here; or read it here again.",
                e)
            {
                Target = input.ToString(),
            };
        }
    }

    private static bool Was(PSObject input, Type type) => input.TypeNames.Contains("Deserialized." + type.FullName);

    private static object Make(PSObject input, Type type)
    {
        object made = Activator.CreateInstance(type)!;
        foreach (PropertyInfo property in type.GetProperties().Where(property => property.CanWrite))
        {
            if (input.Properties[property.Name]?.Value is { } value)
            {
                property.SetValue(made, Value(PSObject.AsPSObject(value), Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType));
            }
        }

        return made;
    }

    private static object Value(PSObject value, Type type)
    {
        if (type.IsArray)
        {
            object[] items = [.. ((IEnumerable)value.BaseObject).Cast<object>().Select(item => Value(PSObject.AsPSObject(item), type.GetElementType()!))];
            Array array = Array.CreateInstance(type.GetElementType()!, items.Length);
            items.CopyTo(array, 0);
            return array;
        }

        // As text a time has no fractions of a second.
        return type == typeof(DateTimeOffset) && value.Properties["UtcTicks"]?.Value is long ticks
            ? new DateTimeOffset(ticks, TimeSpan.Zero).ToOffset((TimeSpan)value.Properties["Offset"].Value)
            : !type.IsEnum && Was(value, type) ? Make(value, type)
            : LanguagePrimitives.ConvertTo(value.BaseObject, type, CultureInfo.InvariantCulture);
    }
}
