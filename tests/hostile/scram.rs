//! SCRAM from both sides: messages of a stranger, and an exchange that somebody changes on the way.

use super::{Whim, message};
use pgsteer::auth::scram::{
    Binding, Chosen, ClientFirst, ClientSecret, EndPoint, Keys, NONCE_BYTES, Nonce, Proved,
    ScramError, Verifier, begin,
};
use pgsteer::wire::message::{read_password, read_sasl_initial, read_sasl_response};
use std::sync::LazyLock;

/// Anything: as messages, and as changes of good ones.
pub(crate) fn run(data: &[u8]) {
    framed(data);
    in_the_place_of_a_client(data);
    in_the_place_of_a_server(data);
    changed_on_the_way(data);
    stored(data);
}

const PASSWORD_SALT: &[u8] = b"0123456789abcdef";

static VERIFIER: LazyLock<Verifier> =
    LazyLock::new(|| Verifier::from_password("secret", PASSWORD_SALT));

/// The keys of the password, as an honest login shows them: so that nothing is hashed each time.
static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let password = pgsteer::auth::Secret::new("secret".to_owned()).into();
    let secret = ClientSecret::Password(password);
    exchange(secret, (Binding::Unsupported, Chosen::OnlyPlain), &mut |_, _| ()).unwrap().keys
});

fn nonce(byte: u8) -> Nonce {
    Nonce::new([byte; NONCE_BYTES])
}

fn end_point() -> EndPoint {
    EndPoint(Box::new([7; 32]))
}

/// An exchange of both our sides, each of whose messages somebody may change.
fn exchange(
    secret: ClientSecret,
    (binding, chosen): (Binding, Chosen),
    change: &mut dyn FnMut(usize, &mut Vec<u8>),
) -> Result<Proved, ScramError> {
    let mut pass = |number: usize, text: String| {
        let mut bytes = text.into_bytes();
        change(number, &mut bytes);
        bytes
    };
    let (first, client) = ClientFirst::new(secret, binding, nonce(1));
    let (answer, server) = begin(&pass(0, first), chosen, VERIFIER.clone(), &nonce(2))?;
    let (proof, client) = client.next(&pass(1, answer))?;
    let proved = server.finish(&pass(2, proof))?;
    client.finish(&pass(3, proved.message.clone()))?;
    Ok(proved)
}

/// The messages around it.
fn framed(data: &[u8]) {
    let whole = message(b'p', data);
    assert_eq!(read_sasl_response(&whole).unwrap(), data);
    if let Ok(initial) = read_sasl_initial(&whole) {
        let end_point = end_point();
        for offered in [None, Some(&end_point)] {
            // What was chosen is one of those that were offered.
            let offer = Chosen::offer(offered);
            let named = offer.iter().any(|name| name.as_bytes() == initial.mechanism);
            assert_eq!(Chosen::by_name(initial.mechanism, offered).is_some(), named);
        }
        assert!(initial.data.is_none_or(|inside| inside.len() < data.len()));
    }
    if let Ok(password) = read_password(&whole) {
        assert_eq!([password, b"\0"].concat(), data, "all of it, and nothing else");
    }
}

/// Nobody gets in who does not know the password.
fn in_the_place_of_a_client(data: &[u8]) {
    let (one, two) = halves(data);
    for chosen in [Chosen::OnlyPlain, Chosen::Plain, Chosen::Plus(end_point())] {
        if let Ok((answer, server)) = begin(one, chosen, VERIFIER.clone(), &nonce(2)) {
            assert!(answer.starts_with("r="), "{answer}");
            assert!(server.finish(two).is_err(), "somebody came in");
        }
    }
    let (_, server) =
        begin(b"n,,n=,r=abc", Chosen::OnlyPlain, VERIFIER.clone(), &nonce(2)).unwrap();
    assert!(server.finish(data).is_err(), "somebody came in");
}

/// Nobody passes for a server who has no verifier.
fn in_the_place_of_a_server(data: &[u8]) {
    let (one, two) = halves(data);
    for binding in [Binding::Unsupported, Binding::NotOffered, Binding::Bound(end_point())] {
        let (_, client) = ClientFirst::new(ClientSecret::Keys(KEYS.clone()), binding, nonce(1));
        if let Ok((_, client)) = client.next(one) {
            assert!(client.finish(two).is_err(), "an impostor was believed");
        }
    }
}

fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    let middle = data.iter().position(|byte| *byte == 0);
    let (one, two) = data.split_at(middle.unwrap_or(data.len()));
    (one, two.get(1..).unwrap_or(&[]))
}

/// An exchange of which a byte was changed fails; the same one, unchanged, does not.
fn changed_on_the_way(data: &[u8]) {
    let bindings = [
        (Binding::Unsupported, Chosen::OnlyPlain),
        (Binding::NotOffered, Chosen::OnlyPlain),
        (Binding::Bound(end_point()), Chosen::Plus(end_point())),
    ];
    let mut whim = Whim::of(data);
    let ways = bindings[whim.below(bindings.len())].clone();
    let changed = whim.below(4);
    let mut original = Vec::new();
    let mut changed_to = Vec::new();
    let secret = || ClientSecret::Keys(KEYS.clone());
    let outcome = exchange(secret(), ways.clone(), &mut |number, bytes| {
        if number == changed {
            original.clone_from(bytes);
            let from = whim.below(bytes.len());
            let to = from + whim.below(bytes.len() - from + 1).min(data.len());
            bytes.splice(from..to, data.iter().copied().take(64));
            changed_to.clone_from(bytes);
        }
    });
    // Behind the server's last word there may be extensions, which nobody knows: of text.
    let extended = [original.clone(), b",".to_vec()].concat();
    let is_text = std::str::from_utf8(&changed_to).is_ok();
    let is_extended = changed == 3 && changed_to.starts_with(&extended) && is_text;
    let same = original == changed_to || is_extended;
    assert_eq!(outcome.is_ok(), same, "{changed}: {}", String::from_utf8_lossy(&changed_to));
    assert!(exchange(secret(), ways, &mut |_, _| ()).is_ok(), "the honest one fails");
}

/// What is stored reads as it is written.
fn stored(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for text in [text.to_owned(), format!("SCRAM-SHA-256${text}")] {
        if let Ok(verifier) = Verifier::parse(&text) {
            assert_eq!(Verifier::parse(&verifier.to_text()), Ok(verifier));
        }
    }
}

/// Messages of either side.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for binding in [Binding::Unsupported, Binding::NotOffered] {
        let ways = (binding, Chosen::OnlyPlain);
        exchange(ClientSecret::Keys(KEYS.clone()), ways, &mut |_, bytes| seeds.push(bytes.clone()))
            .unwrap();
    }
    seeds.push(b"p=tls-server-end-point,,n=,r=abc\0c=cD10bHM=,r=abc,p=AAAA".to_vec());
    seeds.push(b"n,a=bob,m=x,r=abc".to_vec());
    seeds.push(b"r=AQEBAQEBAQEBAQEBAQEBAQEBAQEBxyz,s=c2FsdA==,i=1\0v=AAAA".to_vec());
    seeds.push(b"e=other-error".to_vec());
    seeds.push(b"SCRAM-SHA-256\0\0\0\0\x0Bn,,n=,r=abc".to_vec());
    seeds.push(b"SCRAM-SHA-256-PLUS\0\xFF\xFF\xFF\xFF".to_vec());
    seeds.push(b"secret\0".to_vec());
    seeds.push(VERIFIER.to_text().into_bytes());
    seeds
}
