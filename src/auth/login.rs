//! What we log in to a server with.

use crate::auth::Password;
use crate::auth::Secret;
use crate::auth::scram::Keys;
use zeroize::Zeroizing;

/// What is known of a user when we log in to a server as that user.
#[derive(Debug, Clone, Default)]
pub enum LoginSecret {
    /// Nothing: the server must trust us.
    #[default]
    None,
    /// The password, for whatever the server asks.
    Password(Password),
    /// The keys that the user's own login showed, for SCRAM only.
    Keys(Keys),
    /// `md5` and 32 digits, as old servers store it; for md5 only.
    Md5(Secret),
}

/// What a server wants to see for its md5 method: `md5(md5(password + user) + salt)`.
///
/// Source: PostgreSQL manual, 55.2.1 "Start-up", `AuthenticationMD5Password`.
pub fn md5_response(password: &str, user: &str, salt: [u8; 4]) -> String {
    let both = Zeroizing::new([password, user].concat());
    md5_hash_response(&format!("{:x}", md5::compute(both.as_bytes())), salt)
}

/// The same from the stored hash without its `md5`.
pub fn md5_hash_response(hash: &str, salt: [u8; 4]) -> String {
    format!("md5{:x}", md5::compute([hash.as_bytes(), &salt].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with `md5sum`, step by step.
    #[test]
    fn the_old_hash_comes_out() {
        let response = md5_response("secret", "alice", [1, 2, 3, 4]);
        assert_eq!(response, EXPECTED);
        assert_eq!(response, md5_hash_response(INNER, [1, 2, 3, 4]));
    }
    const INNER: &str = "4a0a68b43b6cd5cf266fa02f196e2371";
    const EXPECTED: &str = "md598a0412b9c31436fc53776e863350083";
}
