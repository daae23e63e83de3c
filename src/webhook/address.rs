//! Which addresses a webhook may have. Pure.
//!
//! Whoever administers a repository says where its webhooks send to, so an address is
//! what an attacker would choose: it must not make this server speak to its own
//! network, nor to something that is no web server. A name is resolved when it is
//! sent to, by the guard; what it will resolve to then, nobody can know now.

use std::net::{IpAddr, Ipv4Addr};

use url::{Host, Url};

use crate::upstream::guard::Guard;

/// Longest address, in bytes.
pub const LONGEST_BYTES: usize = 2048;

/// Ports above the first 1024 that other protocols have, and at which a request could be taken for theirs.
/// Source: the bad ports of the Fetch standard.
const BAD_PORTS: [u16; 20] =
    [1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080, 11211];

/// Why an address is refused, in GitHub's words where it has some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

/// Reads an address that somebody wants to be told at.
///
/// # Errors
/// With what is wrong about it.
pub fn read(text: &str, guard: &Guard) -> Result<Url, Refused> {
    let refuse = |why: &str| Err(Refused(why.to_owned()));
    let malformed = "The URL you've entered is not valid. Please make sure that you encode all special characters first";
    // What a URL parser drops silently (newlines, tabs, outer blanks) is not what was meant.
    if text.len() > LONGEST_BYTES || text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '"' || c == '\\') {
        return refuse(malformed);
    }
    let Ok(url) = Url::parse(text) else { return refuse(malformed) };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse("The URL must begin with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("The URL must not hold a user name or password; set a secret instead");
    }
    let port = url.port_or_known_default().unwrap_or(0);
    if (port < 1024 && port != 80 && port != 443) || BAD_PORTS.contains(&port) {
        return Err(Refused(format!("The port {port} is not one that webhooks are sent to")));
    }
    let reachable = match url.host() {
        Some(Host::Domain(name)) => !is_localhost(name) || guard.allows(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => guard.check(&url).is_ok(),
    };
    if !reachable {
        let host = url.host_str().unwrap_or_default();
        let why = format!("Sorry, the URL host {host} is not supported because it isn't reachable over the public Internet");
        return Err(Refused(why));
    }
    Ok(url)
}

/// Names that mean this machine, whatever a resolver says (RFC 6761).
fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_web_are_taken() {
        let guard = Guard::new(Vec::new(), []);
        for good in ["https://example.com/hook?a=b", "http://example.com:8080/", "https://93.184.216.34/", "https://[2606:4700::1]:8443/x"]
        {
            assert_eq!(read(good, &guard).map(|url| url.to_string()).as_deref(), Ok(good));
        }
    }

    #[test]
    fn what_leads_inside_or_to_no_web_server_is_refused() {
        let guard = Guard::new(Vec::new(), []);
        for wrong in [
            "",
            "example.com",
            "/hook",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://example.com/",
            "javascript:alert(1)",
            "https://user@example.com/",
            "https://user:pw@example.com/",
            "https://example.com/\r\nX: y",
            "https://exa\tmple.com/",
            " https://example.com/",
            "https://example.com/\"",
            "https://example.com:22/",
            "https://example.com:25/",
            "https://example.com:6667/",
            "https://example.com:0/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://a.localhost/",
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://0/",
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://192.168.0.1/",
            "http://169.254.169.254/",
            "http://100.64.0.1/",
            "http://[::1]/",
            "http://[::]/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            &format!("https://example.com/{}", "a".repeat(LONGEST_BYTES)),
        ] {
            assert!(read(wrong, &guard).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_allowed() {
        let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()], []);
        for good in ["http://127.0.0.1:9000/", "http://localhost:9000/", "http://10.1.2.3/"] {
            assert!(read(good, &guard).is_ok(), "{good}");
        }
        assert!(read("http://10.2.0.1/", &guard).is_err());
    }
}
