//! Every record can be written, and is read back as it was.

use super::*;
use crate::failover::{
    Appointed, By, Change, Choice, Kind, Loss, MaxLoss, Operation, Phase, Promise, WeakPromise,
};
use crate::pg::{Lsn, SystemId, Timeline};
use crate::topology::Epoch;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use std::sync::Arc;

fn name() -> impl Strategy<Value = Arc<str>> {
    any::<String>().prop_map(Arc::from)
}

fn loss() -> impl Strategy<Value = Loss> {
    prop_oneof![
        Just(Loss::None),
        any::<u64>().prop_map(Loss::AtMost),
        any::<u64>().prop_map(|at_least| Loss::Unknown { at_least }),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Failover), Just(Kind::Switchover)]
}

fn by() -> impl Strategy<Value = By> {
    prop_oneof![Just(By::Evidence), Just(By::Operator), Just(By::Outside)]
}

fn operation() -> impl Strategy<Value = Operation> {
    let loss = || prop_oneof![any::<u64>().prop_map(MaxLoss::Bytes), Just(MaxLoss::Any)];
    (kind(), by(), option::of(name()), loss(), loss(), any::<u64>()).prop_map(
        |(kind, by, to, accepted, word, began)| Operation { kind, by, to, accepted, word, began },
    )
}

fn phase() -> impl Strategy<Value = Phase> {
    let choice = (name(), any::<u64>(), loss()).prop_map(|(server, at, loss)| Choice {
        server,
        at: Lsn(at),
        loss,
    });
    prop_oneof![
        Just(Phase::Stable),
        operation().prop_map(Phase::Draining),
        operation().prop_map(Phase::Revoking),
        (operation(), choice).prop_map(|(operation, choice)| Phase::Promoting(operation, choice)),
    ]
}

fn promise() -> impl Strategy<Value = Promise> {
    let weak = prop_oneof![
        Just(WeakPromise::NotSeen),
        Just(WeakPromise::Hidden),
        Just(WeakPromise::NoNames),
        Just(WeakPromise::Anyone),
        name().prop_map(WeakPromise::UnknownName),
        name().prop_map(WeakPromise::SharedName),
        name().prop_map(WeakPromise::WeakCommit),
        name().prop_map(WeakPromise::Unreadable),
    ];
    prop_oneof![
        (any::<u16>(), btree_set(name(), 0..4))
            .prop_map(|(w, cohort)| Promise::Quorum { w, cohort }),
        weak.prop_map(Promise::Asynchronous),
    ]
}

fn appointed() -> impl Strategy<Value = Appointed> {
    (name(), any::<u64>(), any::<u64>(), any::<u32>(), option::of(any::<u64>())).prop_map(
        |(server, epoch, system, timeline, fork)| Appointed {
            server,
            epoch: Epoch(epoch),
            system: SystemId(system),
            timeline: Timeline(timeline),
            fork: fork.map(Lsn),
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    let whom = (option::of(name()), name(), any::<u32>(), option::of(any::<u64>()));
    let times = (any::<u64>(), any::<u64>(), any::<u64>());
    (kind(), by(), whom, loss(), times).prop_map(
        |(kind, by, (from, to, timeline, fork), loss, (epoch, began, ended))| Change {
            epoch: Epoch(epoch),
            kind,
            by,
            from,
            to,
            timeline: Timeline(timeline),
            fork: fork.map(Lsn),
            loss,
            began,
            ended,
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    (any::<u64>(), phase(), appointed(), promise(), vec(change(), 0..5)).prop_map(
        |(epoch, phase, primary, promise, changes)| Record {
            epoch: Epoch(epoch),
            phase,
            primary,
            promise,
            changes,
        },
    )
}

proptest! {
    /// Whatever a record says is read back as it was, and nothing less than all of it is read.
    #[test]
    fn every_record_comes_back_and_none_that_was_cut(
        record in record(),
        cut in any::<prop::sample::Index>(),
    ) {
        let text = format::write_record(&record, Revision(7), &["a".to_owned()]).unwrap();
        prop_assert_eq!(format::read_record(&text).unwrap(), (record, Revision(7)));
        prop_assert_eq!(format::read_servers(&text).unwrap(), ["a"]);

        let whole = text.trim_end();
        let at = (0..=cut.index(whole.len())).rev().find(|at| whole.is_char_boundary(*at)).unwrap();
        prop_assert!(format::read_record(&whole[..at]).is_err(), "cut at {}", at);
    }
}
