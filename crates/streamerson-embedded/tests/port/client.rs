//! redis-rs, as an application would use it.

use redis::aio::MultiplexedConnection;
use redis::streams::{
    StreamAutoClaimReply, StreamInfoGroupsReply, StreamPendingReply, StreamRangeReply,
    StreamReadOptions, StreamReadReply,
};
use redis::{AsyncCommands, Client};

use crate::server::Server;

const KEY: &str = "shop:{orders}";

async fn connect(server: &Server) -> MultiplexedConnection {
    connect_in(server, "resp2").await
}

async fn connect_in(server: &Server, protocol: &str) -> MultiplexedConnection {
    let url = format!("{}/?protocol={protocol}", server.url());
    let client = Client::open(url).expect("a URL");
    client
        .get_multiplexed_async_connection()
        .await
        .expect("a connection")
}

fn message(data: &str) -> [(&str, &str); 6] {
    [
        ("id", "1"),
        ("type", "greet"),
        ("corr", ""),
        ("reply", ""),
        ("meta", ""),
        ("data", data),
    ]
}

#[tokio::test]
async fn a_group_is_worked_through_in_each_version_of_the_protocol() {
    for protocol in ["resp2", "resp3"] {
        let server = Server::start().await;
        let mut redis = connect_in(&server, protocol).await;
        let _: () = redis
            .xgroup_create_mkstream(KEY, "workers", "$")
            .await
            .unwrap();
        for data in ["a", "b", "c"] {
            let _: String = redis.xadd(KEY, "*", &message(data)).await.unwrap();
        }
        let options = StreamReadOptions::default()
            .group("workers", "ada")
            .count(2)
            .block(1000);
        let read: StreamReadReply = redis.xread_options(&[KEY], &[">"], &options).await.unwrap();
        let ids: Vec<String> = read.keys[0]
            .ids
            .iter()
            .map(|entry| entry.id.clone())
            .collect();
        assert_eq!(ids.len(), 2);
        let data: String = read.keys[0].ids[0].get("data").unwrap();
        assert_eq!(data, "a");

        let settled: usize = redis.xack(KEY, "workers", &ids[..1]).await.unwrap();
        assert_eq!(settled, 1);
        let pending: StreamPendingReply = redis.xpending(KEY, "workers").await.unwrap();
        assert_eq!(pending.count(), 1);
        let claimed: StreamAutoClaimReply = redis
            .xautoclaim_options(KEY, "workers", "bob", 0, "0-0", Default::default())
            .await
            .unwrap();
        assert_eq!(claimed.claimed[0].id, ids[1]);
        let groups: StreamInfoGroupsReply = redis.xinfo_groups(KEY).await.unwrap();
        assert_eq!(
            (groups.groups[0].consumers, groups.groups[0].pending),
            (2, 1)
        );
        let range: StreamRangeReply = redis.xrange_all(KEY).await.unwrap();
        assert_eq!(range.ids.len(), 3);
    }
}

#[tokio::test]
async fn pipelines_and_many_tasks_share_a_connection() {
    let server = Server::start().await;
    let redis = connect(&server).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut redis = redis.clone();
        tasks.spawn(async move {
            let mut pipeline = redis::pipe();
            for data in ["a", "b", "c", "d", "e"] {
                pipeline.xadd(KEY, "*", &message(data));
            }
            let ids: Vec<String> = pipeline.query_async(&mut redis).await.unwrap();
            ids.len()
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().sum::<usize>(), 100);
    let length: usize = redis.clone().xlen(KEY).await.unwrap();
    assert_eq!(length, 100);
}
