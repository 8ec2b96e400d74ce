//! What works with which privileges of the control user: the table in `docs/privileges.md`.

use super::*;

/// A role, and what its bearer gets.
struct Rank {
    role: &'static str,
    create: &'static str,
    /// Whether standbys serve reads.
    reads: bool,
    /// Whether it is seen that a standby streams.
    streaming: bool,
    /// Whether a promotion by hand is followed.
    follows: bool,
}

const RANKS: &[Rank] = &[
    Rank {
        role: "plain",
        create: "CREATE ROLE plain LOGIN",
        reads: false,
        streaming: false,
        follows: false,
    },
    Rank {
        role: "monitor",
        create: "CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor",
        reads: true,
        streaming: true,
        follows: false,
    },
    Rank {
        role: "reader",
        create: "CREATE ROLE reader LOGIN; GRANT pg_monitor TO reader; \
                 GRANT EXECUTE ON FUNCTION pg_read_file(text) TO reader",
        reads: true,
        streaming: true,
        follows: true,
    },
    Rank {
        role: "replicator",
        create: "CREATE ROLE replicator LOGIN REPLICATION",
        reads: true,
        streaming: false,
        follows: true,
    },
    Rank {
        role: "full_rank",
        create: "CREATE ROLE full_rank LOGIN REPLICATION; GRANT pg_monitor TO full_rank",
        reads: true,
        streaming: true,
        follows: true,
    },
];

#[test]
fn each_privilege_does_what_the_table_says() {
    std::thread::scope(|scope| {
        for rank in RANKS {
            scope.spawn(move || check(rank));
        }
    });
}

fn check(rank: &Rank) {
    let cluster = cluster(&plan());
    cluster.primary().rows(rank.create).unwrap();
    cluster.await_replay().unwrap();
    let watched = Watched::over(cluster, rank.role, Policy::default());
    let role = rank.role;

    watched.wait("the primary is found", |topology| topology.writable() == Some(PRIMARY));
    watched.wait("the standbys are seen", |topology| {
        topology.servers.iter().all(|server| server.observation().is_some())
    });
    if rank.reads {
        watched.wait("standbys serve", |topology| reads(topology) == [FIRST, SECOND]);
    } else {
        watched.always("standbys do not serve", |topology| reads(topology).is_empty());
    }
    let streaming = watched.now().servers[1].observation().unwrap().streaming;
    assert_eq!(streaming, rank.streaming.then_some(true), "{role}");

    watched.server(PRIMARY).kill9().unwrap();
    watched.server(FIRST).promote().unwrap();
    watched.wait("the newcomer is seen", |topology| {
        super::role(topology, FIRST) == Some(Role::Primary)
    });
    if rank.follows {
        watched.wait("it is followed", |topology| topology.writable() == Some(FIRST));
    } else {
        watched.always("it is not followed", |topology| topology.writable() != Some(FIRST));
    }
}
