//! Leases on names, and the owners that work under them.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures::future::join_all;
use streamerson_core::{Error, ErrorKind, Fence, Lease, Membership, Name, Settlement, Topic};

use super::lease::{SLACK, settles_into_waiting};
use super::trial::{
    LONG, Trial, Worker, assert_fenced, assert_invalid, forged, membership, name, numbered, text,
    texts, to,
};

impl Trial {
    pub(super) async fn acquire(
        &self,
        topic: &Topic,
        lease: &str,
        holder: &str,
        ttl: Duration,
    ) -> Lease {
        let (lease, holder) = (name(lease), name(holder));
        let acquired = self.broker.acquire(topic, &lease, &holder, ttl);
        let acquired = self.within("acquire", acquired).await.expect("acquire");
        assert_eq!(acquired.name, lease);
        assert!(acquired.epoch > 0 && acquired.remaining <= ttl.max(LONG));
        acquired
    }

    pub(super) async fn release(&self, topic: &Topic, lease: &str, holder: &str) -> bool {
        let (lease, holder) = (name(lease), name(holder));
        let released = self.broker.release(topic, &lease, &holder);
        self.within("release", released).await.expect("release")
    }

    pub(super) async fn leases(&self, topic: &Topic) -> Vec<Lease> {
        let leases = self.broker.leases(topic);
        self.within("leases", leases).await.expect("leases")
    }

    /// Asks until `holder` has the lease.
    async fn acquire_in_time(&self, topic: &Topic, lease: &str, holder: &str) -> Lease {
        let acquired = async {
            loop {
                let acquired = self.acquire(topic, lease, holder, LONG).await;
                if acquired.holder == name(holder) {
                    return acquired;
                }
                self.a_while().await;
            }
        };
        self.within("a lease to run out", acquired).await
    }

    /// Acquires the lease `owner` and joins under it, as `member`, with a lease on deliveries that does not run out.
    async fn join_as_owner(&self, topic: &Topic, member: &str) -> Worker {
        let lease = self.acquire(topic, "owner", member, LONG).await;
        assert_eq!(lease.holder, name(member));
        self.join_as(owner(topic, member, lease.epoch)).await
    }
}

fn owner(topic: &Topic, member: &str, epoch: u64) -> Membership {
    Membership {
        fence: Some(Fence {
            lease: name("owner"),
            epoch,
        }),
        ..membership(topic, "workers", member, LONG)
    }
}

fn holders(leases: &[Lease]) -> Vec<(&str, &str)> {
    let holders = leases.iter();
    holders
        .map(|lease| (lease.name.as_str(), lease.holder.as_str()))
        .collect()
}

/// One holder has a lease until it gives it up; then another has it, at a later epoch. Names and topics are apart.
pub async fn a_lease_has_one_holder(trial: Trial) {
    let (topic, other) = (trial.topic(), trial.topic());
    let hers = trial.acquire(&topic, "seat", "ada", LONG).await;
    assert_eq!(hers.holder, name("ada"));
    assert!(hers.remaining > LONG / 2);
    let asked = trial.acquire(&topic, "seat", "bob", LONG).await;
    assert_eq!((&asked.holder, asked.epoch), (&hers.holder, hers.epoch));
    let renewed = trial.acquire(&topic, "seat", "ada", LONG).await;
    assert_eq!((&renewed.holder, renewed.epoch), (&hers.holder, hers.epoch));

    trial.acquire(&topic, "chair", "bob", LONG).await;
    trial.acquire(&other, "seat", "cyd", LONG).await;
    let held = trial.leases(&topic).await;
    assert_eq!(holders(&held), [("chair", "bob"), ("seat", "ada")]);
    assert_eq!(held[1].epoch, hers.epoch);
    assert!(held[1].remaining > LONG / 2 && held[1].remaining <= LONG);

    assert!(!trial.release(&topic, "seat", "bob").await);
    assert!(!trial.release(&topic, "bench", "ada").await);
    assert!(trial.release(&topic, "seat", "ada").await);
    assert!(!trial.release(&topic, "seat", "ada").await);
    assert_eq!(holders(&trial.leases(&topic).await), [("chair", "bob")]);
    let his = trial.acquire(&topic, "seat", "bob", LONG).await;
    assert_eq!(his.holder, name("bob"));
    assert!(his.epoch > hers.epoch);
    assert_eq!(holders(&trial.leases(&other).await), [("seat", "cyd")]);
}

/// A holder that does not renew keeps its lease for as long as it was given, and no longer.
pub async fn a_lease_runs_out(trial: Trial) {
    let topic = trial.topic();
    let ttl = trial.lease();
    let asked = Instant::now();
    let hers = trial.acquire(&topic, "seat", "ada", ttl).await;
    let his = trial.acquire_in_time(&topic, "seat", "bob").await;
    assert!(
        asked.elapsed() + SLACK >= ttl,
        "lost after {:?}, before {ttl:?} had passed",
        asked.elapsed()
    );
    assert!(his.epoch > hers.epoch);
    assert!(!trial.release(&topic, "seat", "ada").await);
    assert_eq!(holders(&trial.leases(&topic).await), [("seat", "bob")]);
}

/// Who renews in time keeps the lease and its epoch; who comes too late has it anew, also when nobody had it meanwhile.
pub async fn a_loss_is_told_from_a_renewal(trial: Trial) {
    let topic = trial.topic();
    let first = trial.acquire(&topic, "seat", "ada", trial.lease()).await;
    // For long now: if it is still the same, it stays so.
    let renewed = trial.acquire(&topic, "seat", "ada", LONG).await;
    if renewed.epoch == first.epoch {
        assert!(renewed.remaining > trial.lease());
    }
    let brief = trial.acquire(&topic, "seat", "ada", trial.lease()).await;
    assert_eq!(brief.epoch, renewed.epoch);
    let nobody_has_it = async {
        while !trial.leases(&topic).await.is_empty() {
            trial.a_while().await;
        }
    };
    trial.within("a lease to run out", nobody_has_it).await;
    let anew = trial.acquire(&topic, "seat", "ada", LONG).await;
    assert!(anew.epoch > brief.epoch);
}

/// However many ask at the same moment, one has it, and all are told who.
pub async fn of_many_who_ask_one_has_the_lease(trial: Trial) {
    let topic = trial.topic();
    let asking = (0..16).map(|n| {
        let (trial, topic) = (trial.clone(), topic.clone());
        tokio::spawn(async move { trial.acquire(&topic, "seat", &n.to_string(), LONG).await })
    });
    let answers: Vec<(Name, u64)> = join_all(asking)
        .await
        .into_iter()
        .map(|lease| lease.expect("an answer"))
        .map(|lease| (lease.holder, lease.epoch))
        .collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

/// A lease of no time is none.
pub async fn a_lease_takes_time(trial: Trial) {
    let topic = trial.topic();
    let (lease, holder) = (name("seat"), name("ada"));
    let acquired = trial
        .broker
        .acquire(&topic, &lease, &holder, Duration::ZERO);
    assert_invalid(&trial.within("acquire", acquired).await);
    assert_eq!(trial.leases(&topic).await, []);
}

async fn assert_stopped(trial: &Trial, worker: &mut Worker) {
    let next = trial.within("Member::next", worker.member.next(10)).await;
    assert_fenced(&next.map(drop));
}

/// Who has lost the lease is given nothing, settles nothing, and keeps nothing; none of its outputs appear. The next owner
/// has at once what was held, before what is new, though the leases of those deliveries have long to go.
pub async fn an_owner_is_alone(trial: Trial) {
    let (topic, next) = (trial.topic(), trial.topic());
    trial.send(&topic, &["a", "b", "c"]).await;
    let mut ada = trial.join_as_owner(&topic, "ada").await;
    let mut held = ada.take(2).await;
    let (first, second) = (held.remove(0), held.remove(0));
    ada.extend(&[first.receipt.position()]).await;
    assert!(trial.release(&topic, "owner", "ada").await);

    let mut bob = trial.join_as_owner(&topic, "bob").await;
    assert_stopped(&trial, &mut ada).await;
    let positions = [first.receipt.position(), second.receipt.position()];
    let outputs = vec![to(&next, "ada")];
    let fenced = vec![
        Settlement::complete_with(first.receipt, outputs),
        Settlement::retry(second.receipt, LONG),
    ];
    for settled in ada.settle(fenced).await {
        assert_fenced(&settled);
    }
    let extended = trial.within("extend", ada.settler.extend(&positions));
    assert_fenced(&extended.await);

    let deliveries = bob.take(3).await;
    assert_eq!(texts(&deliveries), ["a", "b", "c"]);
    let attempts = deliveries.iter().map(|it| it.receipt.attempt());
    assert_eq!(attempts.collect::<Vec<_>>(), [2, 2, 1]);
    drop(ada);
    for delivery in deliveries {
        let outputs = vec![to(&next, &text(&delivery.message))];
        let settlement = Settlement::complete_with(delivery.receipt, outputs);
        bob.settle_one(settlement).await.expect("the owner settles");
    }
    assert_eq!(trial.texts_of(&next).await, ["a", "b", "c"]);
}

/// However much an owner takes over, it has all of it, in order, before anything new.
pub async fn an_owner_takes_over_in_order(trial: Trial) {
    let topic = trial.topic();
    let sent = numbered(600);
    let batch = sent.iter().map(|text| to(&topic, text));
    trial.append(batch.collect()).await;
    let mut ada = trial.join_as_owner(&topic, "ada").await;
    assert_eq!(ada.take(300).await.len(), 300);
    assert!(trial.release(&topic, "owner", "ada").await);

    let mut bob = trial.join_as_owner(&topic, "bob").await;
    let deliveries = bob.take(600).await;
    for (delivery, sent) in deliveries.iter().zip(&sent) {
        assert_eq!(text(&delivery.message), *sent);
    }
    let again = deliveries.iter().filter(|it| it.receipt.attempt() == 2);
    assert_eq!(again.count(), 300);
}

/// An owner that slept longer than its lease settles nothing when it wakes, whether or not there is another by then.
pub async fn an_owner_that_slept_is_stopped(trial: Trial) {
    for is_replaced in [false, true] {
        let (topic, next) = (trial.topic(), trial.topic());
        trial.send(&topic, &["work"]).await;
        let lease = trial.acquire(&topic, "owner", "ada", LONG).await;
        let mut ada = trial.join_as(owner(&topic, "ada", lease.epoch)).await;
        let receipt = ada.one().await.receipt;
        let brief = trial.acquire(&topic, "owner", "ada", trial.lease()).await;
        assert_eq!(brief.epoch, lease.epoch);
        if is_replaced {
            trial.acquire_in_time(&topic, "owner", "bob").await;
        } else {
            let runs_out = async {
                while !trial.leases(&topic).await.is_empty() {
                    trial.a_while().await;
                }
            };
            trial.within("a lease to run out", runs_out).await;
        }
        let settlement = Settlement::complete_with(receipt, vec![to(&next, "late")]);
        assert_fenced(&ada.settle_one(settlement).await);
        assert_stopped(&trial, &mut ada).await;
        assert_eq!(trial.texts_of(&next).await, [""; 0]);
    }
}

/// A fence holds for one name at one epoch: neither another member nor an earlier owner of the same name joins under it.
pub async fn a_fence_is_for_one_name_at_one_epoch(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["work"]).await;
    let mut before = trial.join_as_owner(&topic, "ada").await;
    let held = before.one().await;
    let again = forged(&held.receipt);
    let old = trial.acquire(&topic, "owner", "ada", LONG).await.epoch;
    assert!(trial.release(&topic, "owner", "ada").await);
    let new = trial.acquire(&topic, "owner", "ada", LONG).await.epoch;
    for refused in [
        owner(&topic, "ada", old),
        owner(&topic, "ada", new + 1),
        owner(&topic, "bob", new),
    ] {
        let joined = trial.within("join", trial.broker.join(refused)).await;
        assert_eq!(
            joined.map(drop).map_err(|error: Error| error.kind()),
            Err(ErrorKind::Fenced)
        );
    }
    // The same name, started again: it has its work at once, and what is left of the former self is stopped.
    let mut after = trial.join_as(owner(&topic, "ada", new)).await;
    let taken = after.one().await;
    assert_eq!(taken.receipt.position(), again.position());
    assert_fenced(&before.settle_one(Settlement::complete(again)).await);
    assert_stopped(&trial, &mut before).await;
    drop(before);
    after.complete(taken).await;
}

/// An owner that waits while its lease goes to another is given nothing of what comes then: it is for the new one.
pub async fn a_waiting_owner_is_stopped(trial: Trial) {
    let topic = trial.topic();
    let mut ada = trial.join_as_owner(&topic, "ada").await;
    {
        let mut waiting = pin!(ada.member.next(10));
        settles_into_waiting(waiting.as_mut()).await;
        assert!(trial.release(&topic, "owner", "ada").await);
        let mut bob = trial.join_as_owner(&topic, "bob").await;
        trial.send(&topic, &["a", "b"]).await;
        let deliveries = bob.take(2).await;
        assert_eq!(texts(&deliveries), ["a", "b"]);
        for delivery in deliveries {
            assert_eq!(delivery.receipt.attempt(), 1);
            bob.complete(delivery).await;
        }
        let stopped = trial.within("Member::next", waiting).await;
        assert_fenced(&stopped.map(drop));
    }
}
