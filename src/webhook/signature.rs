//! Signatures of bodies: how a receiver knows that a delivery is from here and whole. Pure.
//!
//! Source: GitHub's documentation, «Validating webhook deliveries». The key is the
//! webhook's secret; SHA-1 is there for receivers that know nothing newer.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;

/// The value of `X-Hub-Signature-256`.
#[must_use]
pub fn sha256(secret: &[u8], body: &[u8]) -> String {
    // HMAC takes keys of every length (RFC 2104), so the fallback is never used.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// The value of `X-Hub-Signature`.
#[must_use]
pub fn sha1(secret: &[u8], body: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret) else { return String::new() };
    mac.update(body);
    format!("sha1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first is the vector of GitHub's documentation, the others of RFC 4231 and RFC 2202.
    #[test]
    fn signs_like_everyone_else() {
        let hello = sha256(b"It's a Secret to Everybody", b"Hello, World!");
        assert_eq!(hello, "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
        let long = sha256(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(long, "sha256=60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
        assert_eq!(sha1(b"Jefe", b"what do ya want for nothing?"), "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    }
}
