//! Writing records.

use streamerson_core::{Name, Position, Topic};

use super::frame::HEADER;
use super::record::{HeldRecord, Record, TopicRecord, kind, tag};
use crate::body::Body;

/// Writes records behind each other.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    buffer: Vec<u8>,
}

impl Encoder {
    /// Begins a frame.
    pub(crate) fn begin(&mut self) {
        self.buffer.clear();
        self.buffer.resize(HEADER, 0);
    }

    /// The frame so far, its header still blank.
    pub(crate) fn frame(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Whether there is no record in the frame.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.len() <= HEADER
    }

    /// Gives back memory beyond `limit`, after an unusually large frame.
    pub(crate) fn shrink(&mut self, limit: usize) {
        if self.buffer.capacity() > limit {
            self.buffer = Vec::with_capacity(limit);
        }
    }

    /// An entry was appended. Answers where it stands.
    pub(crate) fn append(&mut self, topic: &Topic, position: Position, body: &Body) -> u32 {
        self.buffer.push(kind::APPEND);
        self.placed(topic, position, body)
    }

    /// A delivery was completed, with so many outputs: each is to follow by [`Encoder::output`].
    pub(crate) fn settle(&mut self, topic: &Topic, group: &Name, position: Position, outputs: u32) {
        self.buffer.push(kind::SETTLE);
        self.name(topic.as_str());
        self.name(group.as_str());
        self.position(position);
        self.u32(outputs);
    }

    /// An output of the settlement before. Answers where it stands.
    pub(crate) fn output(&mut self, topic: &Topic, position: Position, body: &Body) -> u32 {
        self.placed(topic, position, body)
    }

    /// An entry is kept aside as `id`. Answers where it stands.
    pub(crate) fn scheduled(&mut self, topic: &Topic, id: Position, body: &Body) -> u32 {
        self.buffer.push(kind::SCHEDULED);
        self.placed(topic, id, body)
    }

    /// What was kept aside as `id` stands in its topic. Answers where.
    pub(crate) fn appeared(
        &mut self,
        id: Position,
        topic: &Topic,
        position: Position,
        body: &Body,
    ) -> u32 {
        self.buffer.push(kind::APPEARED);
        self.position(id);
        self.placed(topic, position, body)
    }

    /// An entry was taken out, with so many outputs: each is to follow by [`Encoder::output`].
    pub(crate) fn taken(&mut self, topic: &Topic, position: Position, outputs: u32) {
        self.buffer.push(kind::TAKEN);
        self.name(topic.as_str());
        self.position(position);
        self.u32(outputs);
    }

    /// A delivery was given back.
    pub(crate) fn retry(&mut self, topic: &Topic, group: &Name, held: HeldRecord) {
        self.buffer.push(kind::RETRY);
        self.name(topic.as_str());
        self.name(group.as_str());
        self.held(held);
    }

    /// Any other record.
    pub(crate) fn record(&mut self, record: &Record) {
        match record {
            Record::GroupCreated {
                topic,
                group,
                cursor,
            } => self.cursor(kind::GROUP_CREATED, topic, group, *cursor),
            Record::GroupMoved {
                topic,
                group,
                from,
                cursor,
            } => {
                self.cursor(kind::GROUP_MOVED_FROM, topic, group, *from);
                self.position(*cursor);
            }
            Record::GroupGone {
                topic,
                group,
                cursor,
                lost,
            } => {
                self.cursor(kind::GROUP_GONE, topic, group, *cursor);
                self.buffer.push((*lost).into());
            }
            Record::GroupRemoved { topic, group } => {
                self.buffer.push(kind::GROUP_REMOVED);
                self.name(topic.as_str());
                self.name(group.as_str());
            }
            Record::Trimmed { topic, boundary } => {
                self.buffer.push(kind::TRIMMED);
                self.name(topic.as_str());
                self.position(*boundary);
            }
            Record::TopicRemoved { topic } => {
                self.buffer.push(kind::TOPIC_REMOVED);
                self.name(topic.as_str());
            }
            Record::Checkpoint { newest, segments } => {
                self.buffer.push(kind::CHECKPOINT);
                self.position(*newest);
                self.u32(segments.len() as u32);
                for sealed in segments {
                    self.u64(sealed.number);
                    self.u64(sealed.end);
                }
            }
            Record::Topic(topic) => self.topic(topic),
            Record::SegmentRemoved { number } => {
                self.buffer.push(kind::SEGMENT_REMOVED);
                self.u64(*number);
            }
            Record::Closed => self.buffer.push(kind::CLOSED),
            Record::Delivered {
                topic,
                group,
                grants,
            } => self.delivered(topic, group, grants),
            Record::StoredOnce {
                topic,
                key,
                position,
                until,
            } => {
                self.buffer.push(kind::STORED_ONCE);
                self.name(topic.as_str());
                self.bytes(key.as_bytes());
                self.position(*position);
                self.u64(*until);
            }
            Record::DoneOnce {
                topic,
                group,
                key,
                until,
                answer,
            } => {
                self.buffer.push(kind::DONE_ONCE);
                self.name(topic.as_str());
                self.name(group.as_str());
                self.bytes(key.as_bytes());
                self.u64(*until);
                self.buffer.push(answer.is_some().into());
                if let Some((meta, data)) = answer {
                    self.bytes(meta);
                    self.bytes(data);
                }
            }
            Record::Divided { topic, partitions } => {
                self.buffer.push(kind::DIVIDED);
                self.name(topic.as_str());
                self.u32(*partitions);
            }
            Record::Epoch { topic, epoch } => {
                self.buffer.push(kind::EPOCH);
                self.name(topic.as_str());
                self.u64(*epoch);
            }
            Record::Waiting { ids } => {
                self.buffer.push(kind::WAITING);
                self.positions(ids);
            }
            Record::Holes { topic, positions } => {
                self.buffer.push(kind::HOLES);
                self.name(topic.as_str());
                self.positions(positions);
            }
            Record::Append(_)
            | Record::Settle { .. }
            | Record::Retry { .. }
            | Record::Scheduled(_)
            | Record::Appeared { .. }
            | Record::Taken { .. } => {
                debug_assert!(false, "entries and deliveries have methods of their own");
            }
        }
    }

    fn delivered(&mut self, topic: &Topic, group: &Name, grants: &[(Position, u32)]) {
        self.buffer.push(kind::DELIVERED);
        self.name(topic.as_str());
        self.name(group.as_str());
        self.u32(grants.len() as u32);
        for (position, attempt) in grants {
            self.position(*position);
            self.u32(*attempt);
        }
    }

    fn positions(&mut self, positions: &[Position]) {
        self.u32(positions.len() as u32);
        positions.iter().for_each(|at| self.position(*at));
    }

    fn topic(&mut self, topic: &TopicRecord) {
        self.buffer.push(kind::TOPIC);
        self.name(topic.topic.as_str());
        self.position(topic.last);
        self.position(topic.boundary);
        self.buffer.push(topic.removed.into());
        self.u32(topic.groups.len() as u32);
        for group in &topic.groups {
            self.name(group.name.as_str());
            self.position(group.cursor);
            self.u32(group.held.len() as u32);
            group.held.iter().for_each(|held| self.held(*held));
        }
    }

    fn cursor(&mut self, kind: u8, topic: &Topic, group: &Name, cursor: Position) {
        self.buffer.push(kind);
        self.name(topic.as_str());
        self.name(group.as_str());
        self.position(cursor);
    }

    fn placed(&mut self, topic: &Topic, position: Position, body: &Body) -> u32 {
        self.name(topic.as_str());
        let at = self.buffer.len() - HEADER;
        self.position(position);
        self.body(body);
        at as u32
    }

    fn body(&mut self, body: &Body) {
        match body {
            Body::Message(message) => {
                let fields = message.fields();
                self.buffer.push(tag::MESSAGE);
                for (_, value) in &fields {
                    self.u32(value.len() as u32);
                }
                for (_, value) in &fields {
                    self.buffer.extend_from_slice(value);
                }
            }
            Body::Foreign(foreign) => {
                self.buffer.push(tag::FOREIGN);
                self.bytes(foreign.reason.as_bytes());
                self.u32(foreign.fields.len() as u32);
                for (name, value) in &foreign.fields {
                    self.bytes(name);
                    self.bytes(value);
                }
            }
        }
    }

    fn held(&mut self, held: HeldRecord) {
        self.position(held.position);
        self.u64(held.due_unix_ms);
        self.u32(held.attempt);
    }

    /// Names are at most 204 bytes: see [`Topic`] and [`Name`].
    fn name(&mut self, name: &str) {
        self.buffer.push(name.len() as u8);
        self.buffer.extend_from_slice(name.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.buffer.extend_from_slice(bytes);
    }

    fn position(&mut self, position: Position) {
        self.u64(position.major());
        self.u64(position.minor());
    }

    fn u32(&mut self, number: u32) {
        self.buffer.extend_from_slice(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.buffer.extend_from_slice(&number.to_le_bytes());
    }
}

/// What the removal of a segment takes in a frame.
pub(crate) const REMOVAL: u64 = 1 + 8;

/// No entry takes more than this in a frame, all included.
pub(crate) fn entry_bound(topic: &Topic, body: &Body) -> usize {
    let framing = match body {
        Body::Message(_) => 1 + 6 * 4,
        Body::Foreign(foreign) => 1 + 8 + foreign.reason.len() + 8 * foreign.fields.len(),
    };
    2 + topic.as_str().len() + 16 + framing + body.size()
}

/// No settlement takes more than this, its outputs aside.
pub(crate) fn settle_bound(topic: &Topic, group: &Name) -> usize {
    3 + topic.as_str().len() + group.as_str().len() + 16 + 12
}

/// No removal of an entry takes more than this, its outputs aside.
pub(crate) fn take_bound(topic: &Topic) -> usize {
    2 + topic.as_str().len() + 16 + 4
}
