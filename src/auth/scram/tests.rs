//! The RFC's example, `pgwire` as the oracle, and everything that must fail.

use super::*;
use crate::auth::Secret;
use pgwire::api::auth::sasl::scram::{ScramClientAuth, ScramSecret, ScramServerAuth};
use proptest::prelude::*;

fn password(text: &str) -> ClientSecret {
    ClientSecret::Password(Secret::new(text.to_owned()).into())
}

fn nonce(byte: u8) -> Nonce {
    Nonce::new([byte; NONCE_BYTES])
}

/// Both of our sides against each other.
fn exchange(verifier: Verifier, secret: ClientSecret) -> Result<(Proved, Verified), ScramError> {
    let (first, client) = ClientFirst::new(secret, nonce(1));
    let (answer, server) = begin(first.as_bytes(), verifier, &nonce(2))?;
    let (proof, client) = client.next(answer.as_bytes())?;
    let proved = server.finish(proof.as_bytes())?;
    let confirmed = client.finish(proved.message.as_bytes())?;
    Ok((proved, confirmed))
}

/// Source: RFC 7677, section 3.
#[test]
fn the_example_of_the_rfc_comes_out() {
    let nonce = Nonce("rOprNGfwEbeRWgbNEkqO".to_owned());
    let (_, client) = ClientFirst::new(password("pencil"), nonce);
    let client = client.named("user"); // we leave the name out
    let server_first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    let (last, client) = client.next(server_first.as_bytes()).unwrap();

    assert_eq!(
        last,
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    );
    let server_final = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    assert!(client.finish(server_final).is_ok());
}

#[test]
fn a_password_proves_itself_and_shows_its_keys() {
    let verifier = Verifier::from_password("secret", b"0123456789abcdef");

    let (proved, confirmed) = exchange(verifier.clone(), password("secret")).unwrap();
    assert_eq!(proved.keys, confirmed.keys);
    assert!(verifier.matches(&proved.keys));

    let (again, _) = exchange(verifier, ClientSecret::Keys(proved.keys.clone())).unwrap();
    assert_eq!(again.keys, proved.keys, "the keys are as good as the password");
}

#[test]
fn another_password_or_another_salt_fails() {
    let verifier = Verifier::from_password("secret", b"0123456789abcdef");
    let wrong = exchange(verifier.clone(), password("Secret"));
    assert_eq!(wrong.err(), Some(ScramError::WrongProof));

    let (proved, _) = exchange(verifier, password("secret")).unwrap();
    let salted_anew = Verifier::from_password("secret", b"fedcba9876543210");
    assert!(!salted_anew.matches(&proved.keys));
    let wrong = exchange(salted_anew, ClientSecret::Keys(proved.keys));
    assert_eq!(wrong.err(), Some(ScramError::WrongProof));
}

#[test]
fn nobody_logs_in_as_a_user_that_does_not_exist() {
    let mock = Verifier::mock("ghost", &[7; 32], None);
    assert_eq!(mock, Verifier::mock("ghost", &[7; 32], None), "the salt must not change");
    assert_ne!(mock.salt(), Verifier::mock("other", &[7; 32], None).salt());
    assert_eq!(exchange(mock, password("")).err(), Some(ScramError::WrongProof));
}

#[test]
fn an_impostor_of_a_server_is_found_out() {
    let (first, client) = ClientFirst::new(password("secret"), nonce(1));
    let verifier = Verifier::from_password("secret", b"0123456789abcdef");
    let (answer, _) = begin(first.as_bytes(), verifier, &nonce(2)).unwrap();
    let (_, client) = client.next(answer.as_bytes()).unwrap();
    let forged = format!("v={}", STANDARD.encode([0; 32]));
    assert_eq!(client.finish(forged.as_bytes()).err(), Some(ScramError::WrongServer));
}

#[test]
fn a_verifier_reads_as_it_is_written() {
    let verifier = Verifier::from_password("secret", b"0123456789abcdef");
    assert_eq!(Verifier::parse(&verifier.to_text()), Ok(verifier.clone()));
    assert!(!format!("{verifier:?}").contains(&STANDARD.encode(verifier.salt())));
    for wrong in [
        "",
        "secret",
        "md5d41d8cd98f00b204e9800998ecf8427e",
        "SCRAM-SHA-256$4096:c2FsdA==$c2hvcnQ=:c2hvcnQ=",
        "SCRAM-SHA-256$0:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "SCRAM-SHA-256$4096:$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ] {
        assert_eq!(Verifier::parse(wrong), Err(VerifierError), "{wrong}");
    }
}

#[test]
fn pgwires_client_logs_in_to_our_server() {
    let verifier = Verifier::from_password("sécret", b"0123456789abcdef");
    let oracle = ScramClientAuth::new(String::new(), "sécret".to_owned());
    let (first, oracle) = oracle.build_client_first().unwrap();
    let (answer, server) = begin(first.as_bytes(), verifier, &nonce(2)).unwrap();
    let (proof, oracle) = oracle.build_client_final(answer.as_bytes()).unwrap();
    let proved = server.finish(proof.as_bytes()).unwrap();
    oracle.verify_server_final(proved.message.as_bytes()).unwrap();
}

#[test]
fn our_client_logs_in_to_pgwires_server() {
    let verifier = Verifier::from_password("secret", b"0123456789abcdef");
    let text = verifier.to_text();
    let (stored, server) = text.rsplit_once('$').unwrap().1.split_once(':').unwrap();
    let oracle = ScramServerAuth::new();
    let (first, client) = ClientFirst::new(password("secret"), nonce(1));
    let secret = ScramSecret::Verifier {
        salt: verifier.salt().to_vec(),
        iterations: 4096,
        stored_key: STANDARD.decode(stored).unwrap(),
        server_key: STANDARD.decode(server).unwrap(),
    };
    let (answer, oracle) =
        oracle.on_client_first_message_with_secret(first.as_bytes(), secret).unwrap();
    let (proof, client) = client.next(answer.as_bytes()).unwrap();
    let last = oracle.on_client_final_message(proof.as_bytes()).unwrap();
    client.finish(last.as_bytes()).unwrap();
}

#[test]
fn a_client_that_wants_more_or_less_is_refused() {
    let begun = |first: &str| {
        let verifier = Verifier::from_password("x", b"salt");
        begin(first.as_bytes(), verifier, &nonce(2)).map(|_| ())
    };
    assert_eq!(begun("n,,n=,r=abc"), Ok(()));
    assert_eq!(begun("y,,n=,r=abc"), Ok(()));
    assert_eq!(begun("p=tls-server-end-point,,n=,r=abc"), Err(ScramError::ChannelBinding));
    for wrong in ["", "n", "n,", "n,a=bob,n=,r=abc", "n,,m=x,n=,r=abc", "n,,n=,r=", "n,,r=abc"] {
        assert!(matches!(begun(wrong), Err(ScramError::Malformed(_))), "{wrong}");
    }
}

#[test]
fn a_server_that_demands_too_much_is_refused() {
    let (_, client) = ClientFirst::new(password("x"), Nonce("abc".to_owned()));
    let refused = client.next(b"r=abcdef,s=c2FsdA==,i=4000000000").err();
    assert_eq!(refused, Some(ScramError::TooManyIterations(4_000_000_000)));
}

proptest! {
    #[test]
    fn no_message_makes_it_panic(message in "([nyp=,crsiv]|.){0,40}") {
        let bytes = message.as_bytes();
        let verifier = Verifier::mock("u", &[0; 32], None);
        if let Ok((_, next)) = begin(bytes, verifier.clone(), &nonce(1)) {
            prop_assert!(next.finish(bytes).is_err());
        }
        let (_, server) = begin(b"n,,n=,r=abc", verifier, &nonce(1)).unwrap();
        prop_assert!(server.finish(bytes).is_err());
        let keys = Keys::derive("x", b"s", std::num::NonZeroU32::MIN);
        let (_, client) = ClientFirst::new(ClientSecret::Keys(keys.clone()), nonce(1));
        prop_assert!(client.next(bytes).is_err());
        let last = ClientFinal::for_tests(keys);
        prop_assert!(last.finish(bytes).is_err());
        prop_assert_eq!(Verifier::parse(&message), Err(VerifierError));
    }
}
