//! The rules that every broker keeps, one function each.
//!
//! A rule is given a [`Trial`] of a broker, uses topics of its own, and panics where the broker breaks it, so that all
//! rules may run against one broker at the same time. The in-memory broker of `streamerson-core` is the specification;
//! `tests/seeded_defects` shows for every rule a broken broker that fails it.
//!
//! [`conformance_suite!`](crate::conformance_suite) makes a test of every rule; [`RULES`] lists them for other drivers.

pub mod append;
pub mod group;
pub mod inbox;
pub mod lease;
pub mod once;
pub mod owner;
pub mod partition;
pub mod payload;
pub mod read;
pub mod restart;
pub mod retry;
pub mod schedule;
pub mod settle;
pub mod stats;
mod trial;
pub mod trim;
pub mod upkeep;

use futures::future::BoxFuture;

pub use trial::Trial;

/// A rule, as [`RULES`] lists it.
#[derive(Clone, Copy)]
pub struct Rule {
    /// The name of its function.
    pub name: &'static str,
    /// Tries a broker; panics where it breaks the rule.
    pub run: fn(Trial) -> BoxFuture<'static, ()>,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Runs every rule against one broker, all at the same time, and answers the names of those it broke. With so much going
/// on, leases are four times as long.
pub async fn all_at_once(trial: Trial) -> Vec<&'static str> {
    let trial = trial.for_a_busy_machine();
    let running: Vec<_> = RULES
        .iter()
        .map(|rule| (rule.name, tokio::spawn((rule.run)(trial.clone()))))
        .collect();
    let mut broken = Vec::new();
    for (name, rule) in running {
        if rule.await.is_err() {
            broken.push(name);
        }
    }
    broken
}

// The dollar is passed in because a macro that makes a macro cannot write one for it.
macro_rules! rules {
    ($dollar:tt $($module:ident :: $rule:ident)*) => {
        /// Every rule.
        pub const RULES: &[Rule] = &[
            $(Rule { name: stringify!($rule), run: |trial| Box::pin($module::$rule(trial)) },)*
        ];

        /// Makes a module with one test per rule of [`conformance`](crate::conformance).
        ///
        /// The second argument is a future of the broker, and of what must live as long: a server, a folder, or `()`. Every
        /// rule gets its own. The crate that uses it needs `tokio`.
        ///
        /// ```
        /// use std::sync::Arc;
        /// use streamerson_core::Broker;
        /// use streamerson_core::memory::MemoryBroker;
        ///
        /// async fn memory() -> (Arc<dyn Broker>, ()) {
        ///     (Arc::new(MemoryBroker::new()), ())
        /// }
        ///
        /// streamerson_testkit::conformance_suite!(on_memory, super::memory());
        /// # fn main() {}
        /// ```
        #[macro_export]
        macro_rules! conformance_suite {
            ($dollar name:ident, $dollar setup:expr) => {
                mod $dollar name {
                    $(
                        #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                        async fn $rule() {
                            let (broker, _keep) = $dollar setup.await;
                            let trial = $crate::conformance::Trial::new(broker);
                            $crate::conformance::$module::$rule(trial).await;
                        }
                    )*
                }
            };
        }
    };
}

rules! { $
    append::positions_grow_in_the_order_of_the_batch
    append::a_batch_may_go_to_several_topics
    append::a_batch_of_a_thousand_keeps_its_order
    append::an_empty_batch_is_answered_empty
    append::concurrent_appends_are_each_stored_once_and_in_order
    append::a_dropped_append_disturbs_no_other
    payload::every_field_arrives_byte_for_byte
    payload::a_megabyte_arrives_whole
    payload::outputs_arrive_byte_for_byte
    read::earliest_sees_everything_there_is
    read::latest_sees_what_is_appended_from_then_on
    read::after_a_position_continues_behind_it
    read::every_reader_sees_everything
    read::a_waiting_reader_wakes
    read::waiting_readers_do_not_hold_each_other_up
    read::a_read_answers_no_more_than_asked
    read::a_cancelled_read_loses_nothing
    read::a_range_ends_where_the_topic_does
    group::each_message_goes_to_one_member
    group::every_group_gets_everything
    group::deliveries_come_in_order
    group::a_waiting_member_wakes
    group::waiting_members_do_not_hold_each_other_up
    group::a_take_answers_no_more_than_asked
    group::a_new_group_starts_where_it_is_told
    group::an_existing_group_keeps_its_place
    group::a_cancelled_take_loses_nothing
    lease::a_silent_members_message_goes_to_another_after_the_lease
    lease::signs_of_life_keep_a_message
    lease::a_late_sign_of_life_takes_nothing_back
    lease::a_message_is_taken_over_by_one_member
    lease::leaving_gives_back_at_once
    lease::a_dropped_member_gives_back
    lease::what_was_given_up_comes_before_what_is_new
    lease::what_was_lost_twice_comes_one_at_a_time
    settle::a_settled_message_does_not_come_again
    settle::a_second_settlement_is_fenced
    settle::what_was_never_delivered_cannot_be_settled
    settle::of_two_holders_one_settles
    settle::of_many_settlements_at_once_one_wins
    settle::outputs_appear_with_the_settlement
    settle::a_fenced_settlement_leaves_no_outputs
    settle::a_batch_is_settled_one_by_one
    settle::a_batch_of_a_thousand_is_settled
    settle::a_settlement_may_feed_its_own_topic
    settle::a_dead_letter_can_be_read
    retry::a_retry_comes_when_it_is_due_and_counts
    retry::a_retry_at_once_goes_to_any_member
    retry::a_retry_by_a_stale_holder_is_fenced
    retry::a_retry_after_the_settlement_is_fenced
    retry::a_retry_that_was_settled_does_not_come
    retry::each_group_retries_for_itself
    inbox::replies_arrive_in_order
    inbox::inboxes_are_private
    inbox::an_inbox_is_bounded
    inbox::a_reply_to_a_vanished_inbox_harms_nothing
    stats::an_unknown_topic_is_not_found
    stats::a_topic_tells_what_it_holds
    stats::a_group_tells_how_far_it_is
    stats::a_group_tells_what_is_next
    stats::a_member_that_waits_shows_signs_of_life
    stats::topics_are_listed_by_name
    trim::the_newest_are_kept
    trim::the_young_are_kept
    trim::what_a_group_has_not_processed_is_kept
    trim::without_groups_nothing_goes
    trim::force_says_what_is_lost
    trim::a_trimmed_topic_goes_on
    schedule::a_scheduled_message_comes_when_it_is_due
    schedule::what_is_due_later_holds_nothing_up
    schedule::outputs_may_be_scheduled
    once::a_key_is_appended_once
    once::of_many_appends_of_one_key_one_is_stored
    once::a_key_is_forgotten_in_time
    once::a_key_is_scheduled_once
    once::a_key_that_is_none_is_refused
    once::an_effect_happens_once
    once::an_effect_without_an_answer_leaves_later_answers
    once::an_effect_belongs_to_its_group
    once::of_many_effects_at_once_one_happens
    once::of_two_holders_one_has_the_effect
    once::only_a_completion_uses_a_key
    once::outputs_may_be_appended_once
    once::a_new_group_has_completed_nothing
    owner::a_lease_has_one_holder
    owner::a_lease_runs_out
    owner::a_loss_is_told_from_a_renewal
    owner::of_many_who_ask_one_has_the_lease
    owner::a_lease_takes_time
    owner::an_owner_is_alone
    owner::an_owner_takes_over_in_order
    owner::an_owner_that_slept_is_stopped
    owner::a_fence_is_for_one_name_at_one_epoch
    owner::a_waiting_owner_is_stopped
    partition::a_topic_is_divided_once
    partition::a_divided_topic_is_there
    partition::what_cannot_be_divided_is_refused
    upkeep::what_is_pending_is_listed
    upkeep::pending_tells_the_attempts
    upkeep::an_unknown_group_is_not_found
    upkeep::a_group_moved_back_has_it_all_again
    upkeep::moving_back_takes_what_is_held
    upkeep::a_group_moved_forth_keeps_what_it_holds
    upkeep::a_group_is_moved_by_who_holds_the_lease
    upkeep::of_two_who_move_a_group_the_late_one_is_fenced
    upkeep::an_entry_is_taken_once
    upkeep::what_is_not_there_is_not_taken
    upkeep::a_taken_delivery_is_fenced
    upkeep::a_removed_group_is_forgotten
    upkeep::a_removed_topic_is_gone
    upkeep::only_members_that_hold_nothing_are_removed
    upkeep::removing_members_loses_nothing
}
