//! Opening a data directory: reads every segment, verifies it, and builds the state from it.

use std::fs;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use streamerson_core::group::{Group, Held, Holding};
use streamerson_core::once::Answer;
use streamerson_core::{Durability, Error, ErrorKind, Name, Position, Result, Topic};

use super::GroupKey;
use super::change;
use super::cold::Place;
use super::decide::Moment;
use super::state::{After, INBOX_TTL, State};
use super::topic::{Slot, Stored};
use crate::Recovery;
use crate::log::decode::{Decoder, Malformed, entry, entry_size};
use crate::log::directory::{Directory, unusable};
use crate::log::encode::Encoder;
use crate::log::files::zero;
use crate::log::frame;
use crate::log::record::{HeldRecord, Placed, Record, Sealed, TopicRecord};
use crate::log::scan::{Tail, scan};
use crate::log::segment::{Blocks, HEAD, Segment, damaged, unreadable};
use crate::log::writer::{Log, Settings, refusal};

/// Reads the log in `directory` into `state`, or begins one.
pub(crate) fn recover(
    directory: Directory,
    settings: Settings,
    state: &mut State,
    marks: &[(GroupKey, Position)],
    moment: Moment,
) -> Result<(Log, Recovery)> {
    // What a crash left of a segment that never was one.
    match fs::remove_file(directory.next()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(unusable(directory.path(), &error));
        }
        _ => {}
    }
    let numbers = directory.segments()?;
    let noted = directory.newest().unwrap_or(0);
    let Some(last) = numbers.last().copied().filter(|last| *last >= noted) else {
        if noted > 0 {
            return Err(missing(&directory, noted));
        }
        return begin(directory, settings, state);
    };
    // What a segment that is not needed any more says must not come back, should its file still be there: what says that it is
    // over may be gone.
    let needed = needed(&directory, last)?;
    let is_needed =
        |number: &u64| *number == last || needed.as_ref().is_none_or(|n| n.contains(number));
    let (numbers, leftovers): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(is_needed);
    let mut replay = Replay::new(state, moment)?;
    let mut ends = Vec::with_capacity(numbers.len());
    for number in &numbers {
        ends.push(replay.segment(&directory, *number)?);
    }
    for (key, cursor) in marks {
        replay.reached(key, *cursor);
    }
    let sealed = replay.sealed();
    verify(&directory, &sealed, &ends)?;
    let Some((active, tail)) = ends.pop() else {
        return Err(missing(&directory, last));
    };
    let last = replay.last;
    mend(&settings, &active, tail)?;
    if settings.durability >= Durability::Disk {
        secure(&directory, &settings, &sealed, &ends, &active, &last)?;
    }
    leftovers
        .iter()
        .for_each(|number| delete(&directory, *number));
    drop_leftovers(&directory, &sealed, &ends, state);
    state.note_all_removed();
    let recovery = Recovery {
        segments: numbers.len() as u64,
        entries: state.topics().map(|(_, topic)| topic.len()).sum(),
        truncated_bytes: tail.torn,
    };
    let log = Log::resume(directory, settings, active, tail.end, sealed)?;
    Ok((log, recovery))
}

/// The segments that the checkpoint at the head of the `last` one needs. `None`: it does not read, as reading all will show.
fn needed(directory: &Directory, last: u64) -> Result<Option<Vec<u64>>> {
    let segment = Arc::new(Segment::open(
        last,
        directory.segment(last),
        directory.open_files(),
    )?);
    let head = Blocks::new(segment.clone(), 0).frame(HEAD);
    let head = head.map_err(|error| unreadable(segment.path(), &error))?;
    let first = head.and_then(|(frame, _)| Decoder::new(&frame).next());
    Ok(match first {
        Some(Ok(Record::Checkpoint { segments, .. })) => {
            Some(segments.iter().map(|sealed| sealed.number).collect())
        }
        _ => None,
    })
}

fn begin(directory: Directory, settings: Settings, state: &mut State) -> Result<(Log, Recovery)> {
    let mut checkpoint = Encoder::default();
    checkpoint.begin();
    checkpoint.record(&Record::Checkpoint {
        newest: Position::ZERO,
        segments: Vec::new(),
    });
    let log = Log::create(directory, settings, &mut checkpoint)?;
    state.add_segment(log.active().clone());
    Ok((log, Recovery::default()))
}

/// Every segment that is needed must be there, and as long as it was. What stands behind its end does not count: if the disk
/// refused the zeros over an interrupted write, a power loss can bring it back when other segments have followed.
fn verify(directory: &Directory, sealed: &[Sealed], found: &[(Arc<Segment>, Tail)]) -> Result<()> {
    for Sealed { number, end } in sealed {
        let Some((segment, tail)) = found.iter().find(|(s, _)| s.number() == *number) else {
            return Err(missing(directory, *number));
        };
        if tail.end != *end {
            let why = format!("the records end there, but were written up to byte {end}");
            return Err(damaged(segment.path(), tail.end, &why));
        }
    }
    Ok(())
}

fn missing(directory: &Directory, number: u64) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        "log-segment-missing",
        format!(
            "{} is missing. Nothing was changed. Restore it from a backup, or, to begin anew without any message, choose \
             an empty data directory",
            directory.segment(number).display()
        ),
    )
}

/// Removes the rest of an interrupted write, so that it is not taken for damage later.
fn mend(settings: &Settings, active: &Segment, tail: Tail) -> Result<()> {
    if tail.torn == 0 {
        return Ok(());
    }
    let path = active.path();
    tracing::warn!(
        path = %path.display(), offset = tail.end, bytes = tail.torn,
        "the log ended in a write that is not whole, because a crash interrupted it or the disk lost the rest; it was cut off"
    );
    let to = tail.end + tail.torn;
    let file = active.file();
    let cut = file.and_then(|file| zero(&*settings.files, &file, tail.end, to));
    cut.map_err(|error| refusal(path, &error))
}

/// Class `disk`: brings to the disk what was read, before any of it is served, and before anything is deleted because of it.
///
/// It may be in the page cache only: the process before was killed between a write and its sync, its class was `os`, or the
/// disk refused a sync. Then Linux takes what was not written for clean, and another sync succeeds without having written
/// it. In class `disk` that can only be the last frame, since none is written behind one that was not synced: it is written again.
/// For the rest a sync is enough. It costs little where there is nothing to write, against having read all of it.
fn secure(
    directory: &Directory,
    settings: &Settings,
    sealed: &[Sealed],
    found: &[(Arc<Segment>, Tail)],
    active: &Segment,
    last: &Last,
) -> Result<()> {
    let files = &*settings.files;
    let frame = frame::again(&last.body, active.salt(), last.offset);
    let file = active.file();
    let written = file.and_then(|file| files.write(&file, &frame, last.offset));
    written.map_err(|error| refusal(active.path(), &error))?;
    let needed = |segment: &&Segment| sealed.iter().any(|s| s.number == segment.number());
    let before = found.iter().map(|(segment, _)| &**segment).filter(needed);
    for segment in before.chain([active]) {
        let synced = segment.file().and_then(|file| files.sync(&file));
        synced.map_err(|error| refusal(segment.path(), &error))?;
    }
    let synced = directory.sync();
    synced.map_err(|error| refusal(directory.path(), &error))
}

/// Deletes segments that were noted as removed, if a crash came before their deletion.
fn drop_leftovers(
    directory: &Directory,
    sealed: &[Sealed],
    found: &[(Arc<Segment>, Tail)],
    state: &mut State,
) {
    for (segment, _) in found {
        let number = segment.number();
        if sealed.iter().all(|sealed| sealed.number != number) {
            state.forget_segments(&[number]);
            delete(directory, number);
        }
    }
}

/// Deletes a segment that is not needed.
fn delete(directory: &Directory, number: u64) {
    let path = directory.segment(number);
    if let Err(error) = fs::remove_file(&path) {
        let path = path.display();
        tracing::warn!(%path, %error, "a segment that is no longer needed could not be deleted");
    }
}

struct Replay<'a> {
    state: &'a mut State,
    moment: Moment,
    /// Holds what was delivered before the restart.
    holder: Name,
    listed: Vec<Sealed>,
    removed: Vec<u64>,
    last: Last,
}

/// The frame that was read last.
#[derive(Default)]
struct Last {
    offset: u64,
    body: Bytes,
}

impl<'a> Replay<'a> {
    fn new(state: &'a mut State, moment: Moment) -> Result<Replay<'a>> {
        Ok(Replay {
            state,
            moment,
            holder: Name::new("recovered")?,
            listed: Vec::new(),
            removed: Vec::new(),
            last: Last::default(),
        })
    }

    fn sealed(&self) -> Vec<Sealed> {
        let mut sealed = self.listed.clone();
        sealed.retain(|sealed| !self.removed.contains(&sealed.number));
        sealed
    }

    fn segment(&mut self, directory: &Directory, number: u64) -> Result<(Arc<Segment>, Tail)> {
        let segment = Arc::new(Segment::open(
            number,
            directory.segment(number),
            directory.open_files(),
        )?);
        self.state.add_segment(segment.clone());
        let mut begun = false;
        let tail = scan(&segment, |frame, body| {
            let place = Place {
                segment: number,
                frame: frame as u32,
                at: 0,
            };
            begun = true;
            self.last = Last {
                offset: frame,
                body: body.clone(),
            };
            self.frame(body, place).map_err(|malformed| {
                let why = format!(
                    "the record there cannot be read, although its checksum is right: {malformed}"
                );
                damaged(segment.path(), frame, &why)
            })
        })?;
        match begun {
            true => Ok((segment, tail)),
            // It is there before the segment gets its name.
            false => Err(damaged(
                segment.path(),
                tail.end,
                "the checkpoint is missing",
            )),
        }
    }

    fn frame(&mut self, body: &Bytes, place: Place) -> Result<(), Malformed> {
        let (mut checkpoint, mut waiting) = (false, Vec::new());
        for record in Decoder::new(body) {
            match record? {
                Record::Append(placed) => self.entry(&placed, body, place)?,
                Record::Settle {
                    topic,
                    group,
                    position,
                    outputs,
                } => {
                    for output in &outputs {
                        self.entry(output, body, place)?;
                    }
                    if let Some(group) = self.delivered(topic, group, position) {
                        group.settle(position);
                    }
                }
                Record::Taken {
                    topic,
                    position,
                    outputs,
                } => {
                    for output in &outputs {
                        self.entry(output, body, place)?;
                    }
                    self.state.take_out(&topic, position, &mut After::default());
                }
                Record::Scheduled(placed) => self.scheduled(&placed, place),
                Record::Appeared { id, placed } => {
                    self.state.drop_aside(id);
                    self.entry(&placed, body, place)?;
                }
                Record::Delivered {
                    topic,
                    group,
                    grants,
                } => self.delivered_again(&topic, &group, &grants),
                Record::StoredOnce {
                    topic,
                    key,
                    position,
                    until,
                } => {
                    if until > self.moment.unix_ms {
                        let key = own_text(&key);
                        let position = self.state.remembered.keep(&key, position);
                        let keys = &mut self.state.topic_or_new(&topic).keys;
                        keys.restore(key, position, until);
                    }
                }
                Record::DoneOnce {
                    topic,
                    group,
                    key,
                    until,
                    answer,
                } => {
                    if until > self.moment.unix_ms {
                        let answer = answer.map(|(meta, data)| Answer {
                            meta: Bytes::copy_from_slice(&meta),
                            data: Bytes::copy_from_slice(&data),
                        });
                        let key = own_text(&key);
                        let answer = self.state.remembered.keep(&key, answer);
                        let effects = &mut self.state.topic_or_new(&topic).effects;
                        let effects = effects.entry(own_name(group)).or_default();
                        effects.restore(key, answer, until);
                    }
                }
                Record::Waiting { ids } => waiting = ids,
                Record::Holes { topic, positions } => {
                    for position in positions {
                        self.state.take_out(&topic, position, &mut After::default());
                    }
                }
                Record::Retry { topic, group, held } => {
                    let restored = self.held(held);
                    if let Some(group) = self.delivered(topic, group, held.position) {
                        group.restore(held.position, restored);
                    }
                }
                Record::Checkpoint { newest, segments } => {
                    self.state.newest = self.state.newest.max(newest);
                    self.listed = segments;
                    self.removed.clear();
                    checkpoint = true;
                    // What was removed since must not come back: all that is left follows.
                    self.state.forget_what_checkpoints_repeat();
                }
                Record::Topic(topic) => self.topic(topic),
                Record::SegmentRemoved { number } => self.removed.push(number),
                Record::Closed => {}
                change => {
                    // Deliveries are not in the log: what is pending would not be, once the group goes on elsewhere.
                    if let Record::GroupMoved {
                        topic, group, from, ..
                    } = &change
                    {
                        let (topic, group) = (topic.clone(), group.clone());
                        self.reached(&GroupKey { topic, group }, *from);
                    }
                    change::apply(self.state, Some(own(change)), &mut After::default());
                }
            }
        }
        if checkpoint {
            self.state.keep_aside_only(&waiting);
        }
        Ok(())
    }

    fn entry(&mut self, placed: &Placed, frame: &Bytes, place: Place) -> Result<(), Malformed> {
        let Placed {
            topic,
            position,
            at,
        } = placed;
        let place = Place { at: *at, ..place };
        // A position that its writer chose may lie in the future: others do not follow it there.
        if position.major() <= self.moment.unix_ms {
            self.state.newest = self.state.newest.max(*position);
        }
        if topic.is_inbox() {
            if position.major().saturating_add(INBOX_TTL) > self.moment.unix_ms {
                let (_, body) = entry(frame, *at)?;
                let stored = Stored {
                    position: *position,
                    place,
                    body: body.compact(),
                };
                let now = self.moment.now;
                self.state.topic_or_new(topic);
                self.state.show(topic, stored, now, &mut After::default());
                self.assigned(topic, *position);
            }
            return Ok(());
        }
        let state = self.state.topic_or_new(topic);
        if *position < state.boundary {
            // The topic had been forgotten when this was written: else this position would have been refused.
            state.begin_anew();
        }
        if *position >= state.boundary {
            state.push_cold(*position, place, entry_size(frame, *at)?);
            self.state.hold(place.segment);
        }
        self.assigned(topic, *position);
        Ok(())
    }

    fn scheduled(&mut self, placed: &Placed, place: Place) {
        let topic = Topic::new(placed.topic.as_str().to_owned());
        let topic = topic.unwrap_or_else(|_| placed.topic.clone());
        let at = placed.at;
        let slot = Slot::Stored(Place { at, ..place });
        self.state.keep_aside(placed.position, &topic, slot);
    }

    fn delivered_again(&mut self, topic: &Topic, group: &Name, grants: &[(Position, u32)]) {
        for (position, attempt) in grants {
            let restored = self.held(HeldRecord {
                position: *position,
                due_unix_ms: 0,
                attempt: *attempt,
            });
            if let Some(group) = self.delivered(topic.clone(), group.clone(), *position) {
                group.restore(*position, restored);
            }
        }
    }

    /// Everything up to `cursor` was delivered, as far as it is there.
    fn reached(&mut self, key: &GroupKey, cursor: Position) {
        let Some(last) = self.state.topic(&key.topic).map(|topic| topic.last) else {
            return;
        };
        let before = self.state.group_mut(key).map(|group| group.cursor());
        let reached = cursor.min(last);
        if before.is_ok_and(|before| before < reached) {
            let end = reached.successor(0);
            if let Some(group) = self.delivered(key.topic.clone(), key.group.clone(), end) {
                group.seek(reached);
            }
        }
    }

    fn assigned(&mut self, topic: &Topic, position: Position) {
        let state = self.state.topic_or_new(topic);
        state.assigned = state.assigned.max(position);
    }

    /// The group, once everything up to `position` counts as delivered: deliveries are in order, so what stands before
    /// one that was settled had been delivered too.
    fn delivered(&mut self, topic: Topic, group: Name, position: Position) -> Option<&mut Group> {
        let key = GroupKey { topic, group };
        let cursor = self.state.group_mut(&key).ok()?.cursor();
        let skipped = match position > cursor {
            true => self.state.topic(&key.topic)?.positions(cursor, position),
            false => Vec::new(),
        };
        let held: Vec<(Position, Held)> = skipped
            .into_iter()
            .map(|position| {
                let record = HeldRecord {
                    position,
                    due_unix_ms: 0,
                    attempt: 1,
                };
                (position, self.held(record))
            })
            .collect();
        let group = self.state.group_mut(&key).ok()?;
        for (position, held) in held {
            group.restore(position, held);
        }
        if position > cursor {
            group.seek(position);
        }
        Some(group)
    }

    fn held(&self, record: HeldRecord) -> Held {
        let wait = record.due_unix_ms.saturating_sub(self.moment.unix_ms);
        Held {
            member: self.holder.clone(),
            touched: self.moment.now,
            attempt: record.attempt,
            state: Holding::Released {
                due: self.moment.now.saturating_add(wait),
            },
            lost: record.due_unix_ms == 0,
        }
    }

    fn topic(&mut self, record: TopicRecord) {
        let groups: Vec<(Name, Group)> = record
            .groups
            .into_iter()
            .map(|record| {
                let mut group = Group::new(record.cursor);
                for held in record.held {
                    group.restore(held.position, self.held(held));
                }
                group.seek(record.cursor);
                (own_name(record.name), group)
            })
            .collect();
        self.state.topic_or_new(&record.topic);
        self.state.trim(&record.topic, record.boundary);
        if let Some(state) = self.state.topic_mut(&record.topic) {
            // Less than before, where it was removed and forgotten and begins anew.
            state.assigned = record.last;
            state.last = record.last;
            state.boundary = record.boundary;
            state.removed = record.removed;
            state.groups = groups.into_iter().collect();
        }
    }
}

/// Names that were read share the frame's memory, and would keep it.
fn own_name(name: Name) -> Name {
    Name::new(name.as_str().to_owned()).unwrap_or(name)
}

fn own_text(text: &ByteString) -> ByteString {
    ByteString::from(text.to_string())
}

fn own(record: Record) -> Record {
    match record {
        Record::GroupCreated {
            topic,
            group,
            cursor,
        } => Record::GroupCreated {
            topic,
            group: own_name(group),
            cursor,
        },
        Record::GroupGone {
            topic,
            group,
            cursor,
            lost,
        } => Record::GroupGone {
            topic,
            group: own_name(group),
            cursor,
            lost,
        },
        other => other,
    }
}
