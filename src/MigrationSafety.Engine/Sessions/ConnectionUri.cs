using System.Text;

namespace MigrationSafety.Engine.Sessions;

/// <summary>
/// <c>postgresql://[user[:password]@][host[:port]][,...][/dbname][?key=value&amp;...]</c> as libpq reads it (conninfo_uri_parse_options). System.Uri does not
/// do: it knows neither several hosts nor empty ones nor a percent-encoded directory as host.
/// </summary>
internal static class ConnectionUri
{
    private static readonly UTF8Encoding s_strict = new(false, throwOnInvalidBytes: true);

    internal static bool Matches(string text) =>
        text.StartsWith("postgresql://", StringComparison.Ordinal) || text.StartsWith("postgres://", StringComparison.Ordinal);

    internal static Dictionary<string, string> Parse(string text)
    {
        Dictionary<string, string> values = new(StringComparer.Ordinal);
        string rest = text[(text.IndexOf("://", StringComparison.Ordinal) + 3)..];

        int userEnd = rest.IndexOfAny(['@', '/']);
        if (userEnd >= 0 && rest[userEnd] == '@')
        {
            string login = rest[..userEnd];
            int colon = login.IndexOf(':', StringComparison.Ordinal);
            Set("user", colon < 0 ? login : login[..colon]);
            if (colon >= 0)
            {
                Set("password", login[(colon + 1)..]);
            }

            rest = rest[(userEnd + 1)..];
        }

        if (rest.Contains('@', StringComparison.Ordinal))
        {
            // The rest of a password with a / in it would be taken for a database, and shown.
            throw ConnectionText.Invalid("it has an @ outside its user and password; in a user, a password or a database write @ as %40 and / as %2F");
        }

        int hostsEnd = rest.IndexOfAny(['/', '?']);
        ParseHosts(hostsEnd < 0 ? rest : rest[..hostsEnd]);
        rest = hostsEnd < 0 ? string.Empty : rest[hostsEnd..];

        int query = rest.IndexOf('?', StringComparison.Ordinal);
        string path = query < 0 ? rest : rest[..query];
        if (path.Length > 1)
        {
            Set("dbname", path[1..]);
        }

        if (query >= 0 && query + 1 < rest.Length)
        {
            ParseQuery(rest[(query + 1)..]);
        }

        return values;

        void Set(string key, string encoded)
        {
            if (encoded.Length > 0)
            {
                values[key] = Decode(encoded, key);
            }
        }

        void ParseHosts(string list)
        {
            List<string> hosts = [];
            List<string> ports = [];
            foreach (string entry in list.Split(','))
            {
                int close = entry.IndexOf(']', StringComparison.Ordinal);
                if (entry.StartsWith('[') && close < 0)
                {
                    throw ConnectionText.Invalid("the URI has an IPv6 address without its closing bracket");
                }

                if (close == 1)
                {
                    throw ConnectionText.Invalid("the URI has an empty IPv6 address");
                }

                string name = entry.StartsWith('[') ? entry[1..close] : entry.Split(':', 2)[0];
                string after = entry.StartsWith('[') ? entry[(close + 1)..] : entry[name.Length..];
                if (after.Length > 0 && after[0] != ':')
                {
                    throw ConnectionText.Invalid("the URI has something other than a port after an IPv6 address");
                }

                if (name.IndexOf('@', StringComparison.Ordinal) > 0)
                {
                    // libpq would look for such a host, and show the rest of the password as its name.
                    throw ConnectionText.Invalid("the URI has a second '@'; one inside user or password is written %40");
                }

                hosts.Add(name);
                ports.Add(after.Length > 0 ? after[1..] : string.Empty);
            }

            // One empty entry says nothing; several say "the default" in their place.
            if (hosts.Count > 1 || hosts[0].Length > 0)
            {
                values["host"] = Decode(string.Join(',', hosts), "host");
            }

            if (ports.Exists(p => p.Length > 0))
            {
                values["port"] = Decode(string.Join(',', ports), "port");
            }
        }

        void ParseQuery(string parameters)
        {
            // libpq lets an '&' end the query.
            foreach (string parameter in (parameters.EndsWith('&') ? parameters[..^1] : parameters).Split('&'))
            {
                string[] sides = parameter.Split('=');
                string key = Decode(sides[0], "a query parameter");
                if (sides.Length != 2)
                {
                    throw ConnectionText.Invalid(
                        sides.Length < 2 ? "a query parameter of the URI has no '='" : $"the query parameter '{key}' of the URI has more than one '='; write %3D for it");
                }

                string value = Decode(sides[1], key);
                // JDBC's word for it; libpq takes it too.
                if (key == "ssl" && value == "true")
                {
                    (key, value) = ("sslmode", "require");
                }

                if (!ConnectionKeywords.IsLibpq(key))
                {
                    throw ConnectionText.UnknownKey(key, "the URI's query");
                }

                values[key] = value;
            }
        }
    }

    /// <summary>Percent-decoding as UTF-8; a '+' stays one. A percent sign without two hexadecimal digits, and %00, are errors.</summary>
    private static string Decode(string text, string what)
    {
        if (!text.Contains('%', StringComparison.Ordinal))
        {
            return text;
        }

        List<byte> bytes = [];
        for (int i = 0; i < text.Length;)
        {
            if (text[i] != '%')
            {
                int next = text.IndexOf('%', i);
                string plain = next < 0 ? text[i..] : text[i..next];
                bytes.AddRange(Encoding.UTF8.GetBytes(plain));
                i += plain.Length;
                continue;
            }

            if (i + 2 >= text.Length || !char.IsAsciiHexDigit(text[i + 1]) || !char.IsAsciiHexDigit(text[i + 2]) || (text[i + 1] == '0' && text[i + 2] == '0'))
            {
                throw ConnectionText.Invalid($"the URI has a percent sign without two hexadecimal digits in {what}; write %25 for a percent sign");
            }

            bytes.Add(Convert.ToByte(text.Substring(i + 1, 2), 16));
            i += 3;
        }

        try
        {
            return s_strict.GetString([.. bytes]);
        }
        catch (DecoderFallbackException e)
        {
            throw ConnectionText.Invalid($"the percent-encoding in {what} is not UTF-8", e);
        }
    }
}
