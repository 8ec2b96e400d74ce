//! What a TLS connection can be bound to: the digest of the server's certificate.
//!
//! The certificate is digested by the algorithm with which it was signed; MD5 and SHA-1 are
//! replaced by SHA-256. Where the signature names no algorithm of its own (Ed25519), nobody
//! agrees on a digest, and there is none. The signature's algorithm is read here and not by a
//! library, for none that we have knows RSA-PSS and ECDSA with SHA-512.
//!
//! Source: RFC 5929, section 4.1; RFC 5280, section 4.1; `be_tls_get_certificate_hash` in
//! `libpq/be-secure-openssl.c`.

use ring::digest;
use ring::digest::Algorithm;
use rustls::pki_types::CertificateDer;

/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const CONTEXT_0: u8 = 0xA0;

/// Signatures, and digests within the parameters of RSA-PSS, by object identifier.
const ALGORITHMS: &[(&[u8], &Algorithm)] = &[
    // RSA, PKCS 1 v1.5 (1.2.840.113549.1.1): MD5, SHA-1, SHA-256, SHA-384, SHA-512.
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 4], &digest::SHA256),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 5], &digest::SHA256),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 11], &digest::SHA256),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 12], &digest::SHA384),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 13], &digest::SHA512),
    // ECDSA (1.2.840.10045.4): SHA-1, SHA-256, SHA-384, SHA-512.
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 1], &digest::SHA256),
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2], &digest::SHA256),
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 3], &digest::SHA384),
    (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 4], &digest::SHA512),
    // Digests: SHA-1 (1.3.14.3.2.26), SHA-256, SHA-384, SHA-512 (2.16.840.1.101.3.4.2).
    (&[0x2B, 0x0E, 3, 2, 0x1A], &digest::SHA256),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1], &digest::SHA256),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2], &digest::SHA384),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3], &digest::SHA512),
];
/// RSA-PSS (1.2.840.113549.1.1.10), whose digest is among its parameters.
const RSA_PSS: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 1, 10];

/// What a connection is bound to whose server shows this certificate; `None`: nobody knows.
pub(in crate::net) fn end_point(certificate: &CertificateDer<'_>) -> Option<Box<[u8]>> {
    let algorithm = signed_with(certificate)?;
    Some(digest::digest(algorithm, certificate).as_ref().into())
}

/// The digest of a certificate's signature.
fn signed_with(certificate: &[u8]) -> Option<&'static Algorithm> {
    let (certificate, _) = take(certificate, SEQUENCE)?;
    let (_, rest) = take(certificate, SEQUENCE)?; // what was signed
    let (signature, _) = take(rest, SEQUENCE)?;
    let (name, parameters) = take(signature, OBJECT_IDENTIFIER)?;
    if name != RSA_PSS {
        return known(name);
    }
    let (parameters, _) = take(parameters, SEQUENCE)?;
    let Some((digest, _)) = take(parameters, CONTEXT_0) else {
        return Some(&digest::SHA256); // SHA-1 by default, in whose place it stands
    };
    let (digest, _) = take(digest, SEQUENCE)?;
    known(take(digest, OBJECT_IDENTIFIER)?.0)
}

fn known(name: &[u8]) -> Option<&'static Algorithm> {
    ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
}

/// The content of the value that `bytes` begin with, which must have this tag, and what follows.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if first & 0x80 == 0 {
        (usize::from(*first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
        let fits = (1..=4).contains(&digits.len());
        let length = digits.iter().fold(0_usize, |so_far, digit| so_far << 8 | usize::from(*digit));
        (Some(length).filter(|_| fits)?, rest)
    };
    Some(rest.split_at_checked(length)?).filter(|_| *found == tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A value of DER.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let [.., high, low] = length.to_be_bytes();
        let head = if length < 0x80 { vec![tag, low] } else { vec![tag, 0x82, high, low] };
        [&head, content].concat()
    }

    fn certificate(signature: &[u8]) -> CertificateDer<'static> {
        let signed = der(SEQUENCE, &[7; 300]);
        let rest = der(3, &[0; 64]);
        der(SEQUENCE, &[&signed, &der(SEQUENCE, signature), &rest[..]].concat()).into()
    }

    fn length_of(signature: &[u8]) -> Option<usize> {
        end_point(&certificate(signature)).map(|digest| digest.len())
    }

    /// Certificates that openssl made are in `tests/e2e/auth/binding.rs`.
    #[test]
    fn a_certificate_is_digested_as_it_was_signed() {
        let oid = |name: &[u8]| der(OBJECT_IDENTIFIER, name);
        let by_name: Vec<_> =
            ALGORITHMS.iter().map(|(name, _)| length_of(&oid(name)).unwrap()).collect();
        assert_eq!(by_name, [32, 32, 32, 48, 64, 32, 32, 48, 64, 32, 32, 48, 64]);
        let ed25519 = [0x2B, 0x65, 0x70];
        assert_eq!(length_of(&oid(&ed25519)), None);

        let pss =
            |parameters: &[u8]| length_of(&[oid(RSA_PSS), der(SEQUENCE, parameters)].concat());
        let sha512 = der(SEQUENCE, &oid(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3]));
        assert_eq!(pss(&der(CONTEXT_0, &sha512)), Some(64));
        assert_eq!(pss(&[]), Some(32));
        assert_eq!(pss(&der(CONTEXT_0, &der(SEQUENCE, &oid(&ed25519)))), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(signed_with(&bytes).is_none());
            let nested = der(SEQUENCE, &der(SEQUENCE, &bytes));
            prop_assert!(signed_with(&nested).is_none());
            let _read = signed_with(&certificate(&bytes));
        }
    }
}
