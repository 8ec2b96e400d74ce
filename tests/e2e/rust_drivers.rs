//! Two drivers of Rust through the proxy in transaction mode, as applications use them; those of
//! other languages are in `tests/drivers` (`scripts/test-drivers.sh`).

use crate::support::{Blueprint, House};
use futures_util::{SinkExt as _, StreamExt as _, pin_mut};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection as _, Row as _};
use std::time::Duration;
use tokio_postgres::error::SqlState;

fn house() -> House {
    Blueprint::new().set("pool.size", "3").build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlx_works_unchanged() {
    let house = house();
    let uri = house.proxy_uri("postgres", "postgres");
    let pool = PgPoolOptions::new().max_connections(12).connect(&uri).await.unwrap();
    sqlx::query("CREATE TABLE notes (id int PRIMARY KEY, text text)").execute(&pool).await.unwrap();

    // More connections than backends, each with its own cache of prepared statements.
    let mut writers = Vec::new();
    for id in 0..40_i32 {
        let pool = pool.clone();
        writers.push(pgsteer::tasks::spawn("writer", async move {
            let insert = "INSERT INTO notes VALUES ($1, $2)";
            sqlx::query(insert).bind(id).bind(format!("note {id}")).execute(&pool).await.unwrap();
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let mut connection = sqlx::PgConnection::connect(&uri).await.unwrap();
    sqlx::query("INSERT INTO notes VALUES (100, NULL)").execute(&mut connection).await.unwrap();
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&mut connection).await.unwrap();
    assert_eq!(count, 41, "a session reads what it wrote");

    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("DELETE FROM notes").execute(&mut *transaction).await.unwrap();
    transaction.rollback().await.unwrap();
    let error = sqlx::query("INSERT INTO notes VALUES (1, '')").execute(&pool).await.unwrap_err();
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    assert_eq!(code.as_deref(), Some("23505"));

    let mut copy = connection.copy_in_raw("COPY notes FROM STDIN").await.unwrap();
    copy.send("200\tcopied\n201\tcopied\n".as_bytes()).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 2);
    let mut out = connection.copy_out_raw("COPY notes TO STDOUT").await.unwrap();
    let mut copied = Vec::new();
    while let Some(chunk) = out.next().await {
        copied.extend_from_slice(&chunk.unwrap());
    }
    drop(out);
    assert_eq!(String::from_utf8(copied).unwrap().lines().count(), 43);

    let row = sqlx::query("SELECT repeat('x', $1)").bind(20_000_000).fetch_one(&pool).await;
    assert_eq!(row.unwrap().get::<String, _>(0).len(), 20_000_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_postgres_works_unchanged() {
    let house = house();
    let mut client = house.client().await;
    client.batch_execute("CREATE TABLE notes (id int PRIMARY KEY, text text)").await.unwrap();

    let insert = client.prepare("INSERT INTO notes VALUES ($1, $2)").await.unwrap();
    let inserts = (0..50_i32).map(|id| {
        let (client, insert) = (&client, &insert);
        async move { client.execute(insert, &[&id, &"pipelined"]).await.unwrap() }
    });
    assert_eq!(futures_util::future::join_all(inserts).await.iter().sum::<u64>(), 50);
    let read = client.prepare("SELECT count(*) FROM notes WHERE id >= $1").await.unwrap();
    assert_eq!(client.query_one(&read, &[&0]).await.unwrap().get::<_, i64>(0), 50);

    let sink = client.copy_in("COPY notes FROM STDIN").await.unwrap();
    pin_mut!(sink);
    sink.send(bytes::Bytes::from_static(b"100\tcopied\n101\tcopied\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    let out = client.copy_out("COPY notes TO STDOUT").await.unwrap();
    let chunks: Vec<_> = out.collect().await;
    assert_eq!(chunks.len(), 52, "a row a chunk");

    let transaction = client.transaction().await.unwrap();
    transaction.execute("DELETE FROM notes", &[]).await.unwrap();
    let portal = transaction.bind("SELECT id FROM generate_series(1, 10) id", &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&portal, 4).await.unwrap().len(), 4);
    assert_eq!(transaction.query_portal(&portal, 0).await.unwrap().len(), 6);
    transaction.rollback().await.unwrap();

    let error = client.query("SELECT 1/$1", &[&0]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
    let cancel = client.cancel_token();
    let asleep = client.batch_execute("SELECT pg_sleep(60)");
    let cancelling = async {
        // A cancel that comes before its statement hits nothing: it is sent until it hits.
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cancel.cancel_query(tokio_postgres::NoTls).await.unwrap();
        }
    };
    let cancelled = tokio::select! {
        done = asleep => done.unwrap_err(),
        () = cancelling => unreachable!("it goes on until the statement ends"),
    };
    assert_eq!(cancelled.code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(client.query_one(&read, &[&0]).await.unwrap().get::<_, i64>(0), 52);
}
