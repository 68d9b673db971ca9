//! The pages of the demo site: HTML by `maud`, and the rules behind each form.

pub(super) mod accounts;
pub(super) mod article;
pub(super) mod assets;
pub(super) mod comments;
mod discussion;
mod layout;
pub(super) mod login;
pub(super) mod manners;
mod prose;
mod visitor;

/// The fields of a form, in their order.
type Fields = Vec<(String, String)>;

/// The first field called `name`, without white space around it; empty if there is none.
fn field<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.trim())
}

/// Whether `address` could be an e-mail address, by the rule of thumb most sites use.
fn is_email(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    !local.is_empty()
        && address.len() <= 254
        && !address.contains(char::is_whitespace)
        && domain.split('.').count() > 1
        && domain.split('.').all(|label| !label.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_email_address_needs_a_local_part_and_a_dotted_domain() {
        assert!(is_email("ada@example.org"));
        for wrong in ["", "ada", "ada@", "@example.org", "ada@example", "a da@example.org", "ada@example..org"] {
            assert!(!is_email(wrong), "{wrong}");
        }
    }
}
