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

/// Both of our sides against each other, without TLS.
fn exchange(verifier: Verifier, secret: ClientSecret) -> Result<(Proved, Verified), ScramError> {
    bound(Binding::Unsupported, Chosen::OnlyPlain, verifier, secret)
}

/// The same, with this idea of the binding on either side.
fn bound(
    binding: Binding,
    chosen: Chosen,
    verifier: Verifier,
    secret: ClientSecret,
) -> Result<(Proved, Verified), ScramError> {
    let (first, client) = ClientFirst::new(secret, binding, nonce(1));
    let (answer, server) = begin(first.as_bytes(), chosen, verifier, &nonce(2))?;
    let (proof, client) = client.next(answer.as_bytes())?;
    let proved = server.finish(proof.as_bytes())?;
    let confirmed = client.finish(proved.message.as_bytes())?;
    Ok((proved, confirmed))
}

/// Source: RFC 7677, section 3.
#[test]
fn the_example_of_the_rfc_comes_out() {
    let nonce = Nonce("rOprNGfwEbeRWgbNEkqO".to_owned());
    let (_, client) = ClientFirst::new(password("pencil"), Binding::Unsupported, nonce);
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
    let (first, client) = ClientFirst::new(password("secret"), Binding::Unsupported, nonce(1));
    let verifier = Verifier::from_password("secret", b"0123456789abcdef");
    let (answer, _) = begin(first.as_bytes(), Chosen::OnlyPlain, verifier, &nonce(2)).unwrap();
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
    let (answer, server) = begin(first.as_bytes(), Chosen::OnlyPlain, verifier, &nonce(2)).unwrap();
    let (proof, oracle) = oracle.build_client_final(answer.as_bytes()).unwrap();
    let proved = server.finish(proof.as_bytes()).unwrap();
    oracle.verify_server_final(proved.message.as_bytes()).unwrap();
}

#[test]
fn our_client_logs_in_to_pgwires_server() {
    let verifier = Verifier::from_password("secret", b"0123456789abcdef");
    let oracle = ScramServerAuth::new();
    let (first, client) = ClientFirst::new(password("secret"), Binding::Unsupported, nonce(1));
    let (answer, oracle) =
        oracle.on_client_first_message_with_secret(first.as_bytes(), stored(&verifier)).unwrap();
    let (proof, client) = client.next(answer.as_bytes()).unwrap();
    let last = oracle.on_client_final_message(proof.as_bytes()).unwrap();
    client.finish(last.as_bytes()).unwrap();
}

fn end_point(byte: u8) -> EndPoint {
    EndPoint(Box::new([byte; 32]))
}

/// Every flag of a client against every choice, as `read_client_first_message` has it.
#[test]
fn a_flag_that_does_not_go_with_the_choice_is_refused() {
    let begun = |flag: &str, chosen: Chosen| {
        let (first, verifier) = (format!("{flag},,n=,r=abc"), Verifier::from_password("x", b"s"));
        begin(first.as_bytes(), chosen, verifier, &nonce(2)).map(|_| ())
    };
    let plus = || Chosen::Plus(end_point(7));
    let bound = "p=tls-server-end-point";
    for (flag, chosen) in
        [("n", Chosen::OnlyPlain), ("n", Chosen::Plain), ("y", Chosen::OnlyPlain), (bound, plus())]
    {
        assert_eq!(begun(flag, chosen), Ok(()), "{flag}");
    }
    assert_eq!(begun("y", Chosen::Plain), Err(ScramError::Downgraded));
    let unique = Err(ScramError::BindingType("tls-unique".to_owned()));
    assert_eq!(begun("p=tls-unique", plus()), unique);
    for (flag, chosen) in [
        ("n", plus()),
        ("y", plus()),
        (bound, Chosen::OnlyPlain),
        (bound, Chosen::Plain),
        ("x", Chosen::OnlyPlain),
        ("x", plus()),
        ("", plus()),
        ("yy", Chosen::OnlyPlain),
    ] {
        assert!(matches!(begun(flag, chosen), Err(ScramError::Malformed(_))), "{flag}");
    }
}

/// A proof counts on the connection for which it was made, and nobody can take the binding off.
#[test]
fn a_proof_for_another_connection_is_worth_nothing() {
    let verifier = || Verifier::from_password("secret", b"0123456789abcdef");
    let login = |binding, chosen| {
        bound(binding, chosen, verifier(), password("secret")).map(|(proved, _)| proved.keys)
    };
    let keys = login(Binding::Bound(end_point(7)), Chosen::Plus(end_point(7))).unwrap();
    assert!(verifier().matches(&keys), "they open servers that are bound otherwise");
    let elsewhere = login(Binding::Bound(end_point(8)), Chosen::Plus(end_point(7)));
    assert_eq!(elsewhere, Err(ScramError::BoundElsewhere));
    // Somebody in between says that we offered nothing; who can bind finds out.
    assert_eq!(login(Binding::NotOffered, Chosen::Plain), Err(ScramError::Downgraded));
    assert!(login(Binding::NotOffered, Chosen::OnlyPlain).is_ok());

    // Or he changes the flag on the way, and the repetition tells.
    let (first, client) = ClientFirst::new(password("secret"), Binding::NotOffered, nonce(1));
    let changed = first.replacen('y', "n", 1);
    let (answer, server) = begin(changed.as_bytes(), Chosen::Plain, verifier(), &nonce(2)).unwrap();
    let (proof, _) = client.next(answer.as_bytes()).unwrap();
    assert!(matches!(server.finish(proof.as_bytes()), Err(ScramError::Malformed(_))));
}

/// A certificate of openssl's, signed by ECDSA with SHA-384.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBqzCCATKgAwIBAgIUCW9Ez/yrBnX5MQm5V4vrFbwFfFwwCgYIKoZIzj0EAwMw\n\
DDEKMAgGA1UEAwwBeDAgFw0yNjExMjExMTUwNDJaGA8yMTI2MTAyODExNTA0Mlow\n\
DDEKMAgGA1UEAwwBeDB2MBAGByqGSM49AgEGBSuBBAAiA2IABEhe3Cwo5ttyDex+\n\
dmaCNIBAWfk7p9TS8OHykEqCgwJCon1M/gt18/gPtMaPYi0D7djt3nHLkccKXl1v\n\
RNgOKL52xH5oH2QRuY3t5TRjXaLsp7j61hHUeqbbx9Q9xaMItaNTMFEwHQYDVR0O\n\
BBYEFGHZb6uLQkNHKRYwRAIRimxqe1/UMB8GA1UdIwQYMBaAFGHZb6uLQkNHKRYw\n\
RAIRimxqe1/UMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwMDZwAwZAIwVm0h\n\
Dq1/j9bjx5ihVUebuTmm+GBF4EZ9F77dKqm/xveY/XrUO8rW8c7fwALPe/jZAjBQ\n\
52ldCGvGl36lRb/Cqa33h5IyOTYtccEFJhDxi/CPz5KmU8iE2IqGgKTvl9yjnAI=\n\
-----END CERTIFICATE-----\n\
";

/// `pgwire` is the oracle for the digest's place in the messages, too.
#[test]
fn pgwires_server_takes_our_bound_proof() {
    let der: String = CERTIFICATE.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(der).unwrap();
    let digest = ring::digest::digest(&ring::digest::SHA384, &der);
    let mut oracle = ScramServerAuth::new();
    oracle.configure_certificate(CERTIFICATE.as_bytes()).unwrap();
    let verifier = Verifier::from_password("secret", b"0123456789abcdef");

    for (bound_to, is_right) in [(EndPoint(digest.as_ref().into()), true), (end_point(7), false)] {
        let binding = Binding::Bound(bound_to);
        let (first, client) = ClientFirst::new(password("secret"), binding, nonce(1));
        let begun = oracle.on_client_first_message_with_secret(first.as_bytes(), stored(&verifier));
        let (answer, server) = begun.unwrap();
        let (proof, client) = client.next(answer.as_bytes()).unwrap();
        let last = server.on_client_final_message(proof.as_bytes());
        assert_eq!(last.is_ok(), is_right, "{last:?}");
        if let Ok(last) = last {
            client.finish(last.as_bytes()).unwrap();
        }
    }
}

/// A verifier as the oracle wants it.
fn stored(verifier: &Verifier) -> ScramSecret {
    let text = verifier.to_text();
    let (stored, server) = text.rsplit_once('$').unwrap().1.split_once(':').unwrap();
    ScramSecret::Verifier {
        salt: verifier.salt().to_vec(),
        iterations: 4096,
        stored_key: STANDARD.decode(stored).unwrap(),
        server_key: STANDARD.decode(server).unwrap(),
    }
}

#[test]
fn a_client_that_wants_more_or_less_is_refused() {
    let begun = |first: &str| {
        let verifier = Verifier::from_password("x", b"salt");
        begin(first.as_bytes(), Chosen::OnlyPlain, verifier, &nonce(2)).map(|_| ())
    };
    assert_eq!(begun("n,,n=,r=abc"), Ok(()));
    for wrong in ["", "n", "n,", "n,,x=x,n=,r=abc", "n,,n=,r=", "n,,r=abc"] {
        assert!(matches!(begun(wrong), Err(ScramError::Malformed(_))), "{wrong}");
    }
    for wrong in ["n,a=bob,n=,r=abc", "n,,m=x,n=,r=abc"] {
        assert!(matches!(begun(wrong), Err(ScramError::Unsupported(_))), "{wrong}");
    }
}

#[test]
fn a_server_that_demands_too_much_is_refused() {
    let (_, client) =
        ClientFirst::new(password("x"), Binding::Unsupported, Nonce("abc".to_owned()));
    let refused = client.next(b"r=abcdef,s=c2FsdA==,i=4000000000").err();
    assert_eq!(refused, Some(ScramError::TooManyIterations(4_000_000_000)));
}

proptest! {
    #[test]
    fn no_message_makes_it_panic(message in "([nyp=,crsiv]|.){0,40}") {
        let bytes = message.as_bytes();
        let verifier = Verifier::mock("u", &[0; 32], None);
        if let Ok((_, next)) = begin(bytes, Chosen::OnlyPlain, verifier.clone(), &nonce(1)) {
            prop_assert!(next.finish(bytes).is_err());
        }
        let (_, server) = begin(b"n,,n=,r=abc", Chosen::OnlyPlain, verifier, &nonce(1)).unwrap();
        prop_assert!(server.finish(bytes).is_err());
        let keys = Keys::derive("x", b"s", std::num::NonZeroU32::MIN);
        let secret = ClientSecret::Keys(keys.clone());
        let (_, client) = ClientFirst::new(secret, Binding::Unsupported, nonce(1));
        prop_assert!(client.next(bytes).is_err());
        let last = ClientFinal::for_tests(keys);
        prop_assert!(last.finish(bytes).is_err());
        prop_assert_eq!(Verifier::parse(&message), Err(VerifierError));
    }
}
