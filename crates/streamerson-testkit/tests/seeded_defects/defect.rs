//! The defects, and the rules that notice them.

/// What a broken broker does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    // Appending and payloads.
    PositionsAreReversed,
    BatchesGoToOneTopic,
    LargeBatchesAreReversed,
    EmptyBatchesAreAnswered,
    AppendsShareASlot,
    PayloadsAreText,
    PayloadsAreCut,
    OutputsAreText,
    // Reading.
    ReadersSkip,
    LatestIsEarliest,
    LatestIsWhenFirstAsked,
    AfterIsInclusive,
    ReadingConsumes,
    ReadersDoNotWake,
    WaitersShareAConnection,
    MaxIsIgnored,
    CancellingLoses,
    // Groups and leases.
    EveryMemberIsAGroup,
    AllGroupsAreOne,
    DeliveriesAreReversed,
    MembersDoNotWake,
    GroupsStartAtTheEarliest,
    JoiningMovesTheGroup,
    LeasesNeverEnd,
    LeasesEndEarly,
    SignsOfLifeAreIgnored,
    LateSignsOfLifeTakeBack,
    TwoTakeOver,
    SuspectsComeTogether,
    LeavingKeeps,
    DroppedMembersKeep,
    NewComesFirst,
    // Settling.
    SettledComesAgain,
    FenceIsIgnored,
    FenceIsCheckedTooEarly,
    OutputsComeBeforeTheFence,
    OutputsAppearTwice,
    OutputsGoToOneTopic,
    BatchesAreAnsweredByTheirFirst,
    LargeSettlementsAreCut,
    OwnTopicIsNoOutput,
    DeadLettersAreDropped,
    // Retries.
    RetriesIgnoreTheDelay,
    RetriesWaitForTheLease,
    AttemptsAreNotCounted,
    StaleRetriesAreAccepted,
    SettledRetriesCome,
    GroupsShareRetries,
    // Inboxes.
    RepliesAreReversed,
    InboxesAreOne,
    InboxesAreUnbounded,
    VanishedInboxesFail,
    // Stats.
    UnknownTopicsAreEmpty,
    LengthIsOneMore,
    PendingIsNothing,
    LagIsWrong,
    TopicsAreUnsorted,
    TopicsListEverything,
    NextIsTheFirst,
    RetriesAreNotCounted,
    WhoWaitsLooksDead,
    // Trimming.
    TrimKeepsOneMore,
    TrimIgnoresAge,
    TrimIgnoresGroups,
    LossesAreHidden,
    EmptyTopicsForgetTheirEnd,
    // Schedules.
    DueTimesAreIgnored,
    DueBatchesWaitForTheLast,
    WhatWasDueIsForgotten,
    // What happens once.
    KeysAreIgnored,
    KeysAreNeverForgotten,
    EffectsHappenAgain,
    RepetitionsAnswerForThemselves,
    RepetitionsAnswerNothing,
    GroupsShareEffects,
    // Owners.
    LeasesGoToWhoAsks,
    OwnershipNeverEnds,
    OwnershipEndsEarly,
    EpochsDoNotGrow,
    LeasesOfNoTimeAreGiven,
    AnybodyReleases,
    LeasesAreNotListed,
    FencesAreIgnored,
    FencesIgnoreTheEpoch,
    LateOwnersGiveSignsOfLife,
    NewComesAmongMuchThatIsOld,
    // Partitions.
    DividingAgainCounts,
    EverythingIsDivided,
    DividedTopicsAreNotThere,
    // Upkeep.
    PendingIsUnbounded,
    PendingIsTheFirstAttempt,
    PendingIsNeverDue,
    UnknownGroupsAreEmpty,
    GroupsAreNotMovedBack,
    MovingForgetsWhatIsHeld,
    MovesIgnoreTheFence,
    MovesCheckTheFenceTooEarly,
    EverybodyTakes,
    TakingChecksTooEarly,
    TakenCanBeSettled,
    RemovedGroupsStay,
    RemovedTopicsStayDivided,
    DeadLettersGoWithTheirTopic,
    MembersAreRemovedAtOnce,
    RemovedMembersTakeTheirWork,
}

use Defect::*;

/// Every rule stands here at least once: one that no defect can break would say nothing.
pub(crate) const CAUGHT: &[(Defect, &[&str])] = &[
    (
        PositionsAreReversed,
        &[
            "positions_grow_in_the_order_of_the_batch",
            "a_range_ends_where_the_topic_does",
        ],
    ),
    (BatchesGoToOneTopic, &["a_batch_may_go_to_several_topics"]),
    (
        LargeBatchesAreReversed,
        &["a_batch_of_a_thousand_keeps_its_order"],
    ),
    (
        EmptyBatchesAreAnswered,
        &["an_empty_batch_is_answered_empty"],
    ),
    (
        AppendsShareASlot,
        &[
            "concurrent_appends_are_each_stored_once_and_in_order",
            "a_dropped_append_disturbs_no_other",
        ],
    ),
    (PayloadsAreText, &["every_field_arrives_byte_for_byte"]),
    (PayloadsAreCut, &["a_megabyte_arrives_whole"]),
    (OutputsAreText, &["outputs_arrive_byte_for_byte"]),
    (
        ReadersSkip,
        &[
            "earliest_sees_everything_there_is",
            "a_read_answers_no_more_than_asked",
        ],
    ),
    (
        LatestIsEarliest,
        &["latest_sees_what_is_appended_from_then_on"],
    ),
    (
        LatestIsWhenFirstAsked,
        &["latest_sees_what_is_appended_from_then_on"],
    ),
    (AfterIsInclusive, &["after_a_position_continues_behind_it"]),
    (ReadingConsumes, &["every_reader_sees_everything"]),
    (ReadersDoNotWake, &["a_waiting_reader_wakes"]),
    (
        WaitersShareAConnection,
        &[
            "waiting_readers_do_not_hold_each_other_up",
            "waiting_members_do_not_hold_each_other_up",
        ],
    ),
    (
        MaxIsIgnored,
        &[
            "a_read_answers_no_more_than_asked",
            "a_take_answers_no_more_than_asked",
        ],
    ),
    (
        CancellingLoses,
        &[
            "a_cancelled_read_loses_nothing",
            "a_cancelled_take_loses_nothing",
        ],
    ),
    (EveryMemberIsAGroup, &["each_message_goes_to_one_member"]),
    (AllGroupsAreOne, &["every_group_gets_everything"]),
    (DeliveriesAreReversed, &["deliveries_come_in_order"]),
    (MembersDoNotWake, &["a_waiting_member_wakes"]),
    (
        GroupsStartAtTheEarliest,
        &["a_new_group_starts_where_it_is_told"],
    ),
    (JoiningMovesTheGroup, &["an_existing_group_keeps_its_place"]),
    (
        LeasesNeverEnd,
        &[
            "a_silent_members_message_goes_to_another_after_the_lease",
            "of_two_holders_one_settles",
        ],
    ),
    (
        LeasesEndEarly,
        &["a_silent_members_message_goes_to_another_after_the_lease"],
    ),
    (SignsOfLifeAreIgnored, &["signs_of_life_keep_a_message"]),
    (
        LateSignsOfLifeTakeBack,
        &["a_late_sign_of_life_takes_nothing_back"],
    ),
    (TwoTakeOver, &["a_message_is_taken_over_by_one_member"]),
    (
        SuspectsComeTogether,
        &["what_was_lost_twice_comes_one_at_a_time"],
    ),
    (LeavingKeeps, &["leaving_gives_back_at_once"]),
    (DroppedMembersKeep, &["a_dropped_member_gives_back"]),
    (
        NewComesFirst,
        &["what_was_given_up_comes_before_what_is_new"],
    ),
    (
        SettledComesAgain,
        &["a_settled_message_does_not_come_again"],
    ),
    (
        FenceIsIgnored,
        &[
            "a_second_settlement_is_fenced",
            "what_was_never_delivered_cannot_be_settled",
            "of_two_holders_one_settles",
            "of_many_settlements_at_once_one_wins",
            "a_fenced_settlement_leaves_no_outputs",
        ],
    ),
    (
        FenceIsCheckedTooEarly,
        &[
            "of_many_settlements_at_once_one_wins",
            "of_two_holders_one_settles",
        ],
    ),
    (
        OutputsComeBeforeTheFence,
        &[
            "a_fenced_settlement_leaves_no_outputs",
            "of_two_holders_one_settles",
            "of_many_settlements_at_once_one_wins",
            "a_batch_is_settled_one_by_one",
        ],
    ),
    (
        OutputsAppearTwice,
        &[
            "outputs_appear_with_the_settlement",
            "of_two_holders_one_settles",
        ],
    ),
    (OutputsGoToOneTopic, &["outputs_appear_with_the_settlement"]),
    (
        BatchesAreAnsweredByTheirFirst,
        &["a_batch_is_settled_one_by_one"],
    ),
    (
        LargeSettlementsAreCut,
        &["a_batch_of_a_thousand_is_settled"],
    ),
    (OwnTopicIsNoOutput, &["a_settlement_may_feed_its_own_topic"]),
    (DeadLettersAreDropped, &["a_dead_letter_can_be_read"]),
    (
        RetriesIgnoreTheDelay,
        &["a_retry_comes_when_it_is_due_and_counts"],
    ),
    (
        RetriesWaitForTheLease,
        &["a_retry_at_once_goes_to_any_member"],
    ),
    (
        AttemptsAreNotCounted,
        &[
            "a_retry_comes_when_it_is_due_and_counts",
            "a_silent_members_message_goes_to_another_after_the_lease",
            "leaving_gives_back_at_once",
        ],
    ),
    (
        StaleRetriesAreAccepted,
        &[
            "a_retry_by_a_stale_holder_is_fenced",
            "a_retry_after_the_settlement_is_fenced",
        ],
    ),
    (
        SettledRetriesCome,
        &["a_retry_that_was_settled_does_not_come"],
    ),
    (GroupsShareRetries, &["each_group_retries_for_itself"]),
    (RepliesAreReversed, &["replies_arrive_in_order"]),
    (InboxesAreOne, &["inboxes_are_private"]),
    (InboxesAreUnbounded, &["an_inbox_is_bounded"]),
    (
        VanishedInboxesFail,
        &["a_reply_to_a_vanished_inbox_harms_nothing"],
    ),
    (UnknownTopicsAreEmpty, &["an_unknown_topic_is_not_found"]),
    (LengthIsOneMore, &["a_topic_tells_what_it_holds"]),
    (PendingIsNothing, &["a_group_tells_how_far_it_is"]),
    (LagIsWrong, &["a_group_tells_how_far_it_is"]),
    (
        WhoWaitsLooksDead,
        &["a_member_that_waits_shows_signs_of_life"],
    ),
    (TopicsAreUnsorted, &["topics_are_listed_by_name"]),
    (
        TopicsListEverything,
        &["topics_are_listed_by_name", "inboxes_are_private"],
    ),
    (TrimKeepsOneMore, &["the_newest_are_kept"]),
    (TrimIgnoresAge, &["the_young_are_kept"]),
    (
        TrimIgnoresGroups,
        &[
            "what_a_group_has_not_processed_is_kept",
            "without_groups_nothing_goes",
        ],
    ),
    (
        LossesAreHidden,
        &["force_says_what_is_lost", "without_groups_nothing_goes"],
    ),
    (EmptyTopicsForgetTheirEnd, &["a_trimmed_topic_goes_on"]),
    (
        DueTimesAreIgnored,
        &[
            "a_scheduled_message_comes_when_it_is_due",
            "outputs_may_be_scheduled",
            "what_is_due_later_holds_nothing_up",
        ],
    ),
    (
        DueBatchesWaitForTheLast,
        &["what_is_due_later_holds_nothing_up"],
    ),
    (
        WhatWasDueIsForgotten,
        &["what_is_due_later_holds_nothing_up"],
    ),
    (
        KeysAreIgnored,
        &[
            "a_key_is_appended_once",
            "of_many_appends_of_one_key_one_is_stored",
            "a_key_is_scheduled_once",
            "a_key_that_is_none_is_refused",
            "outputs_may_be_appended_once",
        ],
    ),
    (KeysAreNeverForgotten, &["a_key_is_forgotten_in_time"]),
    (
        EffectsHappenAgain,
        &[
            "an_effect_happens_once",
            "of_many_effects_at_once_one_happens",
            "of_two_holders_one_has_the_effect",
            "a_key_that_is_none_is_refused",
        ],
    ),
    (
        RepetitionsAnswerForThemselves,
        &[
            "an_effect_happens_once",
            "of_two_holders_one_has_the_effect",
            "only_a_completion_uses_a_key",
            "a_new_group_has_completed_nothing",
        ],
    ),
    (
        RepetitionsAnswerNothing,
        &[
            "an_effect_happens_once",
            "an_effect_without_an_answer_leaves_later_answers",
        ],
    ),
    (GroupsShareEffects, &["an_effect_belongs_to_its_group"]),
    (
        LeasesGoToWhoAsks,
        &[
            "a_lease_has_one_holder",
            "of_many_who_ask_one_has_the_lease",
        ],
    ),
    (
        OwnershipNeverEnds,
        &["a_lease_runs_out", "an_owner_that_slept_is_stopped"],
    ),
    (OwnershipEndsEarly, &["a_lease_runs_out"]),
    (
        EpochsDoNotGrow,
        &[
            "a_lease_has_one_holder",
            "a_lease_runs_out",
            "a_loss_is_told_from_a_renewal",
        ],
    ),
    (LeasesOfNoTimeAreGiven, &["a_lease_takes_time"]),
    (AnybodyReleases, &["a_lease_has_one_holder"]),
    (
        LeasesAreNotListed,
        &["a_lease_has_one_holder", "a_loss_is_told_from_a_renewal"],
    ),
    (
        FencesAreIgnored,
        &[
            "an_owner_is_alone",
            "an_owner_that_slept_is_stopped",
            "a_fence_is_for_one_name_at_one_epoch",
            "a_waiting_owner_is_stopped",
        ],
    ),
    (
        FencesIgnoreTheEpoch,
        &["a_fence_is_for_one_name_at_one_epoch"],
    ),
    (LateOwnersGiveSignsOfLife, &["an_owner_is_alone"]),
    (
        NewComesAmongMuchThatIsOld,
        &["an_owner_takes_over_in_order"],
    ),
    (DividingAgainCounts, &["a_topic_is_divided_once"]),
    (EverythingIsDivided, &["what_cannot_be_divided_is_refused"]),
    (DividedTopicsAreNotThere, &["a_divided_topic_is_there"]),
    (PendingIsUnbounded, &["what_is_pending_is_listed"]),
    (PendingIsTheFirstAttempt, &["pending_tells_the_attempts"]),
    (PendingIsNeverDue, &["what_is_pending_is_listed"]),
    (UnknownGroupsAreEmpty, &["an_unknown_group_is_not_found"]),
    (
        GroupsAreNotMovedBack,
        &[
            "a_group_moved_back_has_it_all_again",
            "moving_back_takes_what_is_held",
        ],
    ),
    (
        MovingForgetsWhatIsHeld,
        &["a_group_moved_forth_keeps_what_it_holds"],
    ),
    (
        MovesIgnoreTheFence,
        &[
            "a_group_is_moved_by_who_holds_the_lease",
            "of_two_who_move_a_group_the_late_one_is_fenced",
        ],
    ),
    (
        MovesCheckTheFenceTooEarly,
        &["of_two_who_move_a_group_the_late_one_is_fenced"],
    ),
    (
        EverybodyTakes,
        &["an_entry_is_taken_once", "what_is_not_there_is_not_taken"],
    ),
    (TakingChecksTooEarly, &["an_entry_is_taken_once"]),
    (TakenCanBeSettled, &["a_taken_delivery_is_fenced"]),
    (
        RemovedGroupsStay,
        &[
            "a_removed_group_is_forgotten",
            "a_new_group_has_completed_nothing",
        ],
    ),
    (RemovedTopicsStayDivided, &["a_removed_topic_is_gone"]),
    (DeadLettersGoWithTheirTopic, &["a_removed_topic_is_gone"]),
    (
        MembersAreRemovedAtOnce,
        &["only_members_that_hold_nothing_are_removed"],
    ),
    (
        RemovedMembersTakeTheirWork,
        &[
            "only_members_that_hold_nothing_are_removed",
            "removing_members_loses_nothing",
        ],
    ),
    (NextIsTheFirst, &["a_group_tells_what_is_next"]),
    (RetriesAreNotCounted, &["a_group_tells_what_is_next"]),
];
