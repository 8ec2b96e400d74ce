//! What works with which privileges of the control user: the table in `docs/privileges.md`.

use super::*;

/// A role, and what its bearer gets.
struct Rank {
    role: &'static str,
    create: &'static str,
    gets: &'static [Gets],
}

#[derive(PartialEq)]
enum Gets {
    /// Standbys serve reads.
    Reads,
    /// It is seen that a standby streams.
    Streaming,
    /// A promotion by hand is followed.
    Following,
}

const RANKS: &[Rank] = &[
    Rank { role: "plain", create: "CREATE ROLE plain LOGIN", gets: &[] },
    Rank {
        role: "monitor",
        create: "CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor",
        gets: &[Gets::Reads, Gets::Streaming],
    },
    Rank {
        role: "reader",
        create: "CREATE ROLE reader LOGIN; GRANT pg_monitor TO reader; \
                 GRANT EXECUTE ON FUNCTION pg_read_file(text) TO reader",
        gets: &[Gets::Reads, Gets::Streaming, Gets::Following],
    },
    Rank {
        role: "replicator",
        create: "CREATE ROLE replicator LOGIN REPLICATION",
        gets: &[Gets::Reads, Gets::Following],
    },
    Rank {
        role: "full_rank",
        create: "CREATE ROLE full_rank LOGIN REPLICATION; GRANT pg_monitor TO full_rank",
        gets: &[Gets::Reads, Gets::Streaming, Gets::Following],
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
    let watched = Watched::over(cluster, rank.role, unhurried());
    let role = rank.role;

    watched.wait("the primary is found", |topology| topology.writable() == Some(PRIMARY));
    watched.wait("the standbys are seen", |topology| {
        topology.servers.iter().all(|server| server.observation().is_some())
    });
    if rank.gets.contains(&Gets::Reads) {
        watched.wait("standbys serve", |topology| reads(topology) == [FIRST, SECOND]);
    } else {
        watched.always("standbys do not serve", |topology| reads(topology).is_empty());
    }
    let expected = rank.gets.contains(&Gets::Streaming).then_some(true);
    watched.wait(&format!("{role} sees whether it streams"), |topology| {
        topology.servers[1].observation().is_some_and(|seen| seen.streaming == expected)
    });

    watched.server(PRIMARY).kill9().unwrap();
    watched.server(FIRST).promote().unwrap();
    watched.wait("the newcomer is seen", |topology| {
        super::role(topology, FIRST) == Some(Role::Primary)
    });
    if rank.gets.contains(&Gets::Following) {
        watched.wait("it is followed", |topology| topology.writable() == Some(FIRST));
    } else {
        watched.always("it is not followed", |topology| topology.writable() != Some(FIRST));
    }
}
