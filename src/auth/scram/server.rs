//! Our side towards clients.

use super::keys::{ClientKey, Keys, Verifier};
use super::{Binding, Chosen, Nonce, ScramError, attributes, decoded, printable, utf8};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The client has said hello, and has the salt; its proof is expected.
#[derive(Debug)]
pub struct ServerFirst {
    verifier: Verifier,
    /// What the client said of channel binding, to be repeated by it.
    binding: Binding,
    client_bare: String,
    /// What we answered.
    answer: String,
    nonce: String,
}

/// A client has proved that it knows the password.
#[derive(Debug)]
pub struct Proved {
    /// The last message, by which we prove ourselves.
    pub message: String,
    /// What it showed on the way.
    pub keys: Keys,
}

/// Takes the first message of a client that chose so; gives the answer, and what awaits the next
/// one.
pub fn begin(
    client_first: &[u8],
    chosen: Chosen,
    verifier: Verifier,
    nonce: &Nonce,
) -> Result<(String, ServerFirst), ScramError> {
    let text = utf8(client_first)?;
    let mut parts = text.splitn(3, ',');
    let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(ScramError::Malformed("the first message is cut short"));
    };
    let binding = chosen.check(flag)?;
    if !authzid.is_empty() {
        let what = "client uses authorization identity, but it is not supported";
        return Err(ScramError::Unsupported(what));
    }
    if bare.starts_with("m=") {
        let what = "client requires an unsupported SCRAM extension";
        return Err(ScramError::Unsupported(what));
    }
    // The name within is ignored, as PostgreSQL does: the startup message said who.
    let [_, client_nonce] = attributes(bare, ['n', 'r'])?;
    let nonce = format!("{}{}", printable(client_nonce)?, nonce.0);
    let salt = STANDARD.encode(verifier.salt());
    let answer = format!("r={nonce},s={salt},i={}", verifier.iterations());
    let next = ServerFirst {
        verifier,
        binding,
        client_bare: bare.to_owned(),
        answer: answer.clone(),
        nonce,
    };
    Ok((answer, next))
}

impl ServerFirst {
    /// Takes the client's last message.
    pub fn finish(self, client_final: &[u8]) -> Result<Proved, ScramError> {
        let text = utf8(client_final)?;
        let (without_proof, proof) =
            text.rsplit_once(",p=").ok_or(ScramError::Malformed("the proof is missing"))?;
        let [binding, nonce] = attributes(without_proof, ['c', 'r'])?;
        // Compared as it is sent, as PostgreSQL does: there is one way to write it.
        if binding != self.binding.repeated() {
            return Err(match self.binding {
                Binding::Bound(_) => ScramError::BoundElsewhere,
                Binding::Unsupported | Binding::NotOffered => {
                    ScramError::Malformed("the channel binding changed")
                }
            });
        }
        if nonce != self.nonce {
            return Err(ScramError::Malformed("the nonce changed"));
        }
        let proof = decoded(proof)?;
        let proof = proof.try_into().map_err(|_| ScramError::Malformed("the proof's length"))?;
        let message = format!("{},{},{without_proof}", self.client_bare, self.answer);
        let client: ClientKey =
            self.verifier.check(&message, &proof).ok_or(ScramError::WrongProof)?;
        let server = self.verifier.server_key().clone();
        let signature = STANDARD.encode(server.sign(&message));
        Ok(Proved { message: format!("v={signature}"), keys: Keys { client, server } })
    }
}
