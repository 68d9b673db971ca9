//! Checks that a text is a CSS selector, so that a mistake is seen when a profile is stored and not on the page. Which
//! pseudo-classes there are is left to the browser.

use cssparser::{Parser, Token};

/// Deepest nesting of `:is(…)` and the like.
const DEEPEST: u8 = 8;

/// Whether `css` is a selector, or a list of them; `A >>> B` is B in the open shadow root of A.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_selector(css: &str) -> Result<(), String> {
    for part in css.split(">>>") {
        list(&mut Parser::new(part), 0)?;
    }
    Ok(())
}

fn list(parser: &mut Parser<'_>, depth: u8) -> Result<(), String> {
    if depth > DEEPEST {
        return Err("it is nested too deep".to_owned());
    }
    // Whether there is something to select since the last comma or combinator.
    let mut something = false;
    while let Ok(token) = parser.next().cloned() {
        match &token {
            Token::Ident(_) | Token::IDHash(_) | Token::Delim('*') => something = true,
            Token::Delim('.') => {
                parser.expect_ident().map_err(|_| "a class name is missing after the dot".to_owned())?;
                something = true;
            }
            Token::Colon => {
                pseudo(parser, depth)?;
                something = true;
            }
            Token::SquareBracketBlock => {
                let checked = parser.parse_nested_block(|inner| Ok::<_, cssparser::ParseError<()>>(attribute(inner)));
                checked.map_err(|_| "the attribute in [ ] is not understood".to_owned())??;
                something = true;
            }
            // `:has(> img)` begins with one.
            Token::Delim('>' | '+' | '~') if something || depth > 0 => something = false,
            Token::Comma if something => something = false,
            Token::Comma | Token::Delim('>' | '+' | '~') => {
                return Err("nothing stands before a comma or combinator".to_owned());
            }
            other => return Err(format!("{} is not expected there", name(other))),
        }
    }
    if something { Ok(()) } else { Err("it ends where something to select is expected".to_owned()) }
}

fn pseudo(parser: &mut Parser<'_>, depth: u8) -> Result<(), String> {
    let mut token = parser.next().cloned();
    if matches!(token, Ok(Token::Colon)) {
        token = parser.next().cloned();
    }
    match token {
        Ok(Token::Ident(_)) => Ok(()),
        Ok(Token::Function(called)) => {
            let selectors = ["is", "where", "not", "has"].iter().any(|one| called.eq_ignore_ascii_case(one));
            let checked = parser.parse_nested_block(|inner| {
                if selectors {
                    return Ok::<_, cssparser::ParseError<()>>(list(inner, depth + 1));
                }
                while inner.next().is_ok() {}
                Ok(Ok(()))
            });
            checked.map_err(|_| format!("what stands in :{called}( ) is not understood"))?
        }
        _ => Err("a name is missing after the colon".to_owned()),
    }
}

/// `name`, `name=value`, `name^="value" i`.
fn attribute(parser: &mut Parser<'_>) -> Result<(), String> {
    parser.expect_ident().map_err(|_| "the name of an attribute is missing after [".to_owned())?;
    match parser.next().cloned() {
        Err(_) => return Ok(()),
        Ok(
            Token::Delim('=')
            | Token::IncludeMatch
            | Token::DashMatch
            | Token::PrefixMatch
            | Token::SuffixMatch
            | Token::SubstringMatch,
        ) => {}
        Ok(other) => return Err(format!("{} is not expected after the name of an attribute", name(&other))),
    }
    parser
        .expect_ident_or_string()
        .map_err(|_| "the value of an attribute must be a word or stand in quotes".to_owned())?;
    match parser.next().cloned() {
        Err(_) => Ok(()),
        Ok(Token::Ident(flag)) if flag.eq_ignore_ascii_case("i") || flag.eq_ignore_ascii_case("s") => Ok(()),
        Ok(other) => Err(format!("{} is not expected after the value of an attribute", name(&other))),
    }
}

fn name(token: &Token<'_>) -> String {
    use cssparser::ToCss;
    format!("`{}`", token.to_css_string())
}

#[cfg(test)]
mod tests {
    use super::check_selector;

    #[test]
    fn what_browsers_take_is_taken() {
        for css in [
            "#f",
            "form.a.b > input[name=x]",
            "a, b",
            "*",
            "input[type=\"checkbox\" i]:not(:checked)",
            "li:nth-child(2n + 1) ~ p",
            "div:has(> img)",
            "a::before",
            "[data-x]",
            "main   form + p",
            ":is(a, b:hover) c",
            "#a\\:b",
            "x-app >>> form",
        ] {
            assert_eq!(check_selector(css), Ok(()), "{css}");
        }
    }

    #[test]
    fn what_they_refuse_is_refused() {
        for css in [
            "", " ", "#", "##", ".", "[", "#f[", "]", "a >", "> a", "a,", ",a", "a[=x]", "a[x=]", "a[x=1]", "a:",
            "a:not()", "a{}", "5a", "a >>> ", "//form", "a(b)", "a[x=y z]",
        ] {
            assert!(check_selector(css).is_err(), "{css}");
        }
    }
}
