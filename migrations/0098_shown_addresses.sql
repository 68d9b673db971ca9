-- An address as lists show it, so that a search finds nothing that they don't: what is masked could be guessed letter by letter
-- by whether a search finds it. The patterns are those of `src/telemetry/redaction.rs`; a test holds them together.
CREATE FUNCTION shown_address(p_url text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE WHEN p_url !~ '[?&#%@=\s\\]' AND position(':' IN substr(p_url, 9)) = 0 THEN p_url ELSE
        regexp_replace(regexp_replace(regexp_replace(regexp_replace(p_url,
            '([a-zA-Z][a-zA-Z0-9+.-]*:(?:\\?/){2})[^\s/?#"''<>\\]+@', '\1***@', 'g'),
            '((?:[?&#;]|&amp;|%3[bf]|%26|%23|\\u0026)(?:[a-z0-9_.-]*(?:token|secret|password|passwd|signature|jwt|sess(?:ion)?[_-]?id)'
                || '|(?:[a-z0-9_.-]*[_.-])?(?:(?:api|access|private)?[_-]?key|pwd|pass|auth|authorization|sig|otp|code'
                || '|sid|session))(?:=|%3d))[^&#\s"''<>\\]+', '\1***', 'gi'),
            '(\y(?:(?:proxy-)?authorization|(?:set-)?cookie|x-api-key|x-auth-token)\\*["'']?\s*[:=]\s*\\*["'']?)[^\r\n"''<\\]+',
            '\1***', 'gi'),
            '\y(basic|bearer)\s+([a-z0-9+/_.~=-]{8,})', '\1 ***', 'gi')
    END
$$;
