//! How a client proves who it is: what it has to prove, and the messages of the proof.
//!
//! What must be proved comes from the file or from the servers. Whoever does not exist has to
//! prove something, too, which nobody can.

use crate::auth;
use crate::auth::scram::{Chosen, EndPoint, Nonce, Verifier};
use crate::auth::{Authenticated, Keyring, Known, Secret, Source, Word};
use crate::backend::{Answer, Lookup, LookupError, random};
use crate::clock;
use crate::frontend::line::Line;
use crate::frontend::login::{Failure, Gate};
use crate::reactor;
use crate::tasks;
use crate::timer;
use crate::wire::frame;
use crate::wire::frame::HEADER;
use crate::wire::message::{
    AuthRequest, read_password, read_sasl_initial, read_sasl_response, write_auth_request,
};
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info};

/// The longest message of a proof, in bytes.
///
/// Source: `PG_MAX_SASL_MESSAGE_LENGTH` in `libpq/auth-sasl.h`.
const PROOF_MAX: usize = 1024;
/// How long the servers are waited for where they have said before what a user must prove.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether the old hash will do, where nothing better is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OldHash {
    /// It will: the rule says `md5`.
    Allowed,
    /// It won't.
    Refused,
}

/// Who somebody says that he is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) user: &'a Arc<str>,
    pub(super) from: Source,
}

/// Has the client prove that it knows the user's password, on a connection to which the proof can
/// be bound. What is left to be told it is in the second part of `there`.
///
/// Not cancel-safe: dropped, the connection is of no more use.
pub(super) async fn by_password(
    there: (&mut Line, &mut Vec<u8>),
    bound_to: Option<&EndPoint>,
    (gate, claim): (&Gate, Claim<'_>),
    old_hash: OldHash,
) -> Result<Authenticated, Failure> {
    let Claim { user, from } = claim;
    let Demand { word, why, age } = demand(gate, claim).await?;
    // Made for everybody: the time that it takes must not tell for whom it is needed.
    let nobody = gate.keyring.mock(user);
    let (proved, why) = match (word, old_hash) {
        (Word::Md5(hash), OldHash::Allowed) => (by_md5(there.0, user, &hash).await, why),
        (Word::Md5(_), OldHash::Refused) => {
            let why = "only an md5 hash is stored, which takes a rule with the method md5";
            (by_scram(there, bound_to, (gate, user), nobody).await, why)
        }
        (Word::Verifier(verifier), _) => {
            (by_scram(there, bound_to, (gate, user), verifier).await, why)
        }
        (Word::Nothing, _) => (by_scram(there, bound_to, (gate, user), nobody).await, why),
    };
    match proved {
        Ok(authenticated) => {
            gate.keyring.welcome(user, from);
            Ok(authenticated)
        }
        Err(Failure::Refused { refusal, .. }) => {
            gate.keyring.doubt(user, from);
            reconsider(gate, user, age).await;
            Err(Failure::Refused { refusal, why })
        }
        Err(other) => Err(other),
    }
}

/// What a user has to prove.
struct Demand {
    /// This; or nothing, which can't be proved.
    word: Word,
    /// Why that can't succeed, if it can't.
    why: &'static str,
    age: Age,
}

/// Whether a demand is as the servers have it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    /// It is; or they have no say in it, or can't be asked.
    Fresh,
    /// They have said so before, and were not asked or did not answer in time.
    Remembered,
}

/// What the user has to prove. The servers are asked, unless they were lately and he comes from
/// where he has proved himself; those that are slow are not waited for if they have been asked
/// before.
async fn demand(gate: &Gate, claim: Claim<'_>) -> Result<Demand, Failure> {
    let Claim { user, from } = claim;
    let demanded = |word: Word, why, age| match word {
        Word::Verifier(_) | Word::Md5(_) => Demand { word, why: "", age },
        Word::Nothing => Demand { word, why, age },
    };
    // Where the file has a password, its verifier may first have to be computed, for milliseconds.
    reactor::send_now();
    let remembered = match gate.keyring.known(user) {
        Known::Verifier(verifier) => {
            return Ok(demanded(Word::Verifier(verifier), "", Age::Fresh));
        }
        Known::Md5(hash) => return Ok(demanded(Word::Md5(hash), "", Age::Fresh)),
        Known::Ask(remembered) => remembered,
    };
    let Some(lookup) = &gate.lookup else {
        let why = "the user is not in auth.file, and there is no auth.query";
        return Ok(demanded(Word::Nothing, why, Age::Fresh));
    };
    if !gate.lookup_age_max.is_zero()
        && let Some(word) = gate.keyring.cached(user, from, clock::now() - gate.lookup_age_max)
    {
        return Ok(demanded(word, "", Age::Remembered));
    }
    // Whatever is known of the user: what is waited must not tell.
    lookup.await_turn(from).await;
    let asking = ask(&gate.keyring, lookup, user);
    let before = "the servers knew no password of this user when they were asked last";
    let Some(remembered) = remembered else {
        let (word, why) =
            asking.await.map_err(|source| Failure::Lookup { user: Arc::clone(user), source })?;
        return Ok(demanded(word, why, Age::Fresh));
    };
    let mut asking = Box::pin(asking);
    match timer::timeout(PATIENCE, &mut asking).await {
        Ok(Ok((word, why))) => Ok(demanded(word, why, Age::Fresh)),
        Ok(Err(error)) => {
            info!(?user, %error, "login goes on with what the servers said before");
            Ok(demanded(remembered, before, Age::Fresh))
        }
        Err(_) => {
            info!(?user, "the servers are slow; login goes on with what they said before");
            // The next one goes on with what they say now; it ends by itself.
            drop(tasks::spawn("late answer", asking));
            Ok(demanded(remembered, before, Age::Remembered))
        }
    }
}

/// Asks the servers, and remembers what they say.
fn ask(
    keyring: &Arc<Keyring>,
    lookup: &Arc<Lookup>,
    user: &Arc<str>,
) -> impl Future<Output = Result<(Word, &'static str), Arc<LookupError>>> + Send + use<> {
    let (keyring, lookup, user) = (Arc::clone(keyring), Arc::clone(lookup), Arc::clone(user));
    async move {
        let asked_at = clock::now();
        let (word, why) = match lookup.find(&user).await? {
            Answer::Verifier(verifier) => (Word::Verifier(verifier), ""),
            Answer::Md5(hash) => (Word::Md5(hash), ""),
            Answer::Nothing(why) => (Word::Nothing, why),
        };
        keyring.learn(&user, word.clone(), asked_at);
        Ok((word, why))
    }
}

/// A proof failed, perhaps because the password was changed since the servers were asked: their
/// present word is waited for before the refusal, so that the next try is held against that.
async fn reconsider(gate: &Gate, user: &Arc<str>, age: Age) {
    if age == Age::Remembered
        && let Some(lookup) = &gate.lookup
        && let Err(error) = ask(&gate.keyring, lookup, user).await
    {
        debug!(?user, %error, "the servers could not be asked again");
    }
}

/// The exchange of md5: a salt, and what it makes of the hash.
async fn by_md5(line: &mut Line, user: &Arc<str>, hash: &Secret) -> Result<Authenticated, Failure> {
    let salt = random().map_err(Failure::Broken)?;
    let mut out = Vec::new();
    write_auth_request(&mut out, &AuthRequest::Md5Password(salt))?;
    line.send(&out).await?;
    let message = proof_message(line).await?;
    let answer = read_password(&message)?;
    let proved = auth::by_md5(user, hash, salt, answer);
    proved.map_err(|refusal| Failure::Refused { refusal, why: "" })
}

/// The exchange of SCRAM.
async fn by_scram(
    (line, out): (&mut Line, &mut Vec<u8>),
    bound_to: Option<&EndPoint>,
    (gate, user): (&Gate, &Arc<str>),
    verifier: Verifier,
) -> Result<Authenticated, Failure> {
    let refused = |refusal| Failure::Refused { refusal, why: "" };
    write_auth_request(out, &AuthRequest::Sasl(Chosen::offer(bound_to)))?;
    line.send(out).await?;
    let message = proof_message(line).await?;
    let initial = read_sasl_initial(&message)?;
    let Some(chosen) = Chosen::by_name(initial.mechanism, bound_to) else {
        let what = "client selected an invalid SASL authentication mechanism";
        return Err(Failure::Protocol(what.to_owned()));
    };
    let nonce = Nonce::new(random().map_err(Failure::Broken)?);
    let hello = initial.data.unwrap_or_default();
    let begun = auth::challenge(user, verifier, (chosen, hello), &nonce);
    let (answer, challenge) = begun.map_err(refused)?;
    out.clear();
    write_auth_request(out, &AuthRequest::SaslContinue(answer.into_bytes().into()))?;
    line.send(out).await?;

    let message = proof_message(line).await?;
    let entry = challenge.finish(read_sasl_response(&message)?).map_err(refused)?;
    out.clear();
    write_auth_request(out, &AuthRequest::SaslFinal(entry.message.into_bytes().into()))?;
    gate.keyring.remember(user, entry.keys);
    Ok(entry.authenticated)
}

/// One message of a proof.
async fn proof_message(line: &mut Line) -> Result<Vec<u8>, Failure> {
    let header = match frame::peek(line.peek(HEADER).await?) {
        Ok(Some(header)) => header,
        Ok(None) => return Err(Failure::Left),
        Err(error) => return Err(Failure::Protocol(error.to_string())),
    };
    match header.tag {
        b'p' if header.total <= PROOF_MAX => (),
        b'p' => {
            let what = format!("authentication message of {} bytes is too long", header.total);
            return Err(Failure::Protocol(what));
        }
        b'X' => return Err(Failure::Left),
        other => {
            let what = format!("expected SASL response, got message {:?}", char::from(other));
            return Err(Failure::Protocol(what));
        }
    }
    line.exactly(header.total).await
}
