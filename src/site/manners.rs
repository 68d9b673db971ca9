//! How a site wants to be visited.

use std::fmt;
use std::str::FromStr;

use chrono::NaiveTime;
use serde::{Serialize, Serializer};

/// What an enrolment says of a visitor's manners, beside its pace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Manners {
    /// Whom the site may ask, in the User-Agent; None: whom the worker's configuration names.
    pub contact: Option<String>,
    /// When nothing is begun there.
    pub quiet_hours: Option<QuietHours>,
    /// What its robots.txt is to us.
    pub robots: Robots,
}

/// What a site's robots.txt is to us.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Robots {
    /// Pages that it keeps from us are not opened.
    #[default]
    Respect,
    /// Whoever authorised the enrolment has allowed more than it says.
    Ignore,
}

/// A time of each day, by the clocks of a time zone; `22:00-06:00` goes over midnight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuietHours {
    /// From then on.
    pub from: NaiveTime,
    /// Until before then.
    pub to: NaiveTime,
    /// As Postgres knows it: `UTC`, `Europe/Berlin`.
    pub zone: String,
}

impl fmt::Display for QuietHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} {}", self.from.format("%H:%M"), self.to.format("%H:%M"), self.zone)
    }
}

impl Serialize for QuietHours {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for QuietHours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` are no quiet hours; write 22:00-06:00, or 22:00-06:00 Europe/Berlin");
        let (hours, zone) = text.trim().split_once(' ').unwrap_or((text.trim(), "UTC"));
        let (from, to) = hours.split_once('-').ok_or_else(wrong)?;
        let time = |text: &str| NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| wrong());
        let (from, to) = (time(from)?, time(to)?);
        if from == to {
            return Err(format!("`{text}` has no end; `pagehand site stop` leaves a site alone for good"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '+' | '-');
        match zone.trim() {
            zone if !zone.is_empty() && zone.len() <= 60 && zone.chars().all(plain) => {
                Ok(QuietHours { from, to, zone: zone.to_owned() })
            }
            _ => Err(wrong()),
        }
    }
}

/// Checks what is to stand in the User-Agent.
///
/// # Errors
/// What may stand there.
pub fn check_contact(text: &str) -> Result<String, String> {
    let text = text.trim();
    let fits = !text.is_empty()
        && text.len() <= 200
        && text.chars().all(|c| matches!(c, ' '..='~') && !matches!(c, '(' | ')' | '\\'));
    match fits {
        true => Ok(text.to_owned()),
        false => {
            Err("must have 1 to 200 printable ASCII characters and no brackets; write a web or mail address".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours_have_one_spelling_and_what_is_none_is_answered_with_what_to_write() {
        for (given, kept) in
            [("22:00-06:00", "22:00-06:00 UTC"), (" 9:30-10:00 Europe/Berlin ", "09:30-10:00 Europe/Berlin")]
        {
            assert_eq!(given.parse::<QuietHours>().unwrap().to_string(), kept);
        }
        for wrong in ["", "22:00", "22-6", "25:00-06:00", "22:00-06:00 a'b", "22:00-06:00 ", "x-y"] {
            if wrong.trim() == "22:00-06:00" {
                continue;
            }
            assert!(wrong.parse::<QuietHours>().unwrap_err().contains("Europe/Berlin"), "{wrong}");
        }
        assert!("06:00-06:00".parse::<QuietHours>().unwrap_err().contains("site stop"));
    }

    #[test]
    fn a_contact_breaks_no_header() {
        assert_eq!(check_contact(" https://example.org/bots ").unwrap(), "https://example.org/bots");
        for wrong in ["", " ", "a\nb", "a)b", "ü", &"x".repeat(201)] {
            assert!(check_contact(wrong).is_err(), "{wrong}");
        }
    }
}
