//! Reading records.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use streamerson_core::message::Foreign;
use streamerson_core::{Message, Name, Position, Topic};

use super::record::{GroupRecord, HeldRecord, Placed, Record, Sealed, TopicRecord, kind, tag};
use crate::body::Body;

/// The bytes do not read as a record, although their checksum is right: a defect, or a newer format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(&'static str);

/// Reads the records of a frame.
pub(crate) struct Decoder<'a> {
    frame: &'a Bytes,
    at: usize,
}

impl<'a> Decoder<'a> {
    /// The records in the body of `frame`.
    pub(crate) fn new(frame: &'a Bytes) -> Decoder<'a> {
        Decoder { frame, at: 0 }
    }

    fn record(&mut self) -> Result<Record, Malformed> {
        Ok(match self.u8()? {
            kind::APPEND => Record::Append(self.placed()?),
            kind::SETTLE => {
                let (topic, group, position) = (self.topic()?, self.name()?, self.position()?);
                let outputs = self.many(Decoder::placed)?;
                Record::Settle {
                    topic,
                    group,
                    position,
                    outputs,
                }
            }
            kind::RETRY => Record::Retry {
                topic: self.topic()?,
                group: self.name()?,
                held: self.held()?,
            },
            kind::GROUP_CREATED => Record::GroupCreated {
                topic: self.topic()?,
                group: self.name()?,
                cursor: self.position()?,
            },
            kind::GROUP_MOVED => Record::GroupMoved {
                topic: self.topic()?,
                group: self.name()?,
                from: Position::ZERO,
                cursor: self.position()?,
            },
            kind::GROUP_MOVED_FROM => Record::GroupMoved {
                topic: self.topic()?,
                group: self.name()?,
                from: self.position()?,
                cursor: self.position()?,
            },
            kind::GROUP_GONE => Record::GroupGone {
                topic: self.topic()?,
                group: self.name()?,
                cursor: self.position()?,
                lost: self.u8()? != 0,
            },
            kind::GROUP_REMOVED => Record::GroupRemoved {
                topic: self.topic()?,
                group: self.name()?,
            },
            kind::TRIMMED => Record::Trimmed {
                topic: self.topic()?,
                boundary: self.position()?,
            },
            kind::TOPIC_REMOVED => Record::TopicRemoved {
                topic: self.topic()?,
            },
            kind::CHECKPOINT => Record::Checkpoint {
                newest: self.position()?,
                segments: self.many(Decoder::sealed)?,
            },
            kind::TOPIC => Record::Topic(TopicRecord {
                topic: self.topic()?,
                last: self.position()?,
                boundary: self.position()?,
                removed: self.u8()? != 0,
                groups: self.many(Decoder::group)?,
            }),
            kind::SEGMENT_REMOVED => Record::SegmentRemoved {
                number: self.u64()?,
            },
            kind::CLOSED => Record::Closed,
            kind::DELIVERED => Record::Delivered {
                topic: self.topic()?,
                group: self.name()?,
                grants: self.many(|decoder| Ok((decoder.position()?, decoder.u32()?)))?,
            },
            kind::SCHEDULED => Record::Scheduled(self.placed()?),
            kind::APPEARED => Record::Appeared {
                id: self.position()?,
                placed: self.placed()?,
            },
            kind::TAKEN => Record::Taken {
                topic: self.topic()?,
                position: self.position()?,
                outputs: self.many(Decoder::placed)?,
            },
            kind::STORED_ONCE => Record::StoredOnce {
                topic: self.topic()?,
                key: text(self.bytes()?)?,
                position: self.position()?,
                until: self.u64()?,
            },
            kind::DONE_ONCE => Record::DoneOnce {
                topic: self.topic()?,
                group: self.name()?,
                key: text(self.bytes()?)?,
                until: self.u64()?,
                answer: match self.u8()? {
                    0 => None,
                    _ => Some((self.bytes()?, self.bytes()?)),
                },
            },
            kind::DIVIDED => Record::Divided {
                topic: self.topic()?,
                partitions: self.u32()?,
            },
            kind::EPOCH => Record::Epoch {
                topic: self.topic()?,
                epoch: self.u64()?,
            },
            kind::WAITING => Record::Waiting {
                ids: self.many(Decoder::position)?,
            },
            kind::HOLES => Record::Holes {
                topic: self.topic()?,
                positions: self.many(Decoder::position)?,
            },
            _ => return Err(Malformed("unknown kind of record")),
        })
    }

    fn placed(&mut self) -> Result<Placed, Malformed> {
        let topic = self.topic()?;
        let at = self.at as u32;
        let position = self.position()?;
        self.pass_body()?;
        Ok(Placed {
            topic,
            position,
            at,
        })
    }

    fn pass_body(&mut self) -> Result<(), Malformed> {
        match self.u8()? {
            tag::MESSAGE => {
                let lengths = self.lengths()?;
                self.skip(lengths.iter().sum())
            }
            tag::FOREIGN => {
                self.bytes()?;
                for _ in 0..self.u32()? {
                    self.bytes()?;
                    self.bytes()?;
                }
                Ok(())
            }
            _ => Err(Malformed("unknown kind of entry")),
        }
    }

    fn body(&mut self) -> Result<Body, Malformed> {
        match self.u8()? {
            tag::MESSAGE => {
                let mut slots: [Bytes; 6] = Default::default();
                for (slot, length) in slots.iter_mut().zip(self.lengths()?) {
                    *slot = self.slice(length)?;
                }
                let [id, kind, corr, reply, meta, data] = slots;
                Ok(Body::Message(Message {
                    id: text(id)?,
                    kind: text(kind)?,
                    corr: text(corr)?,
                    reply: text(reply)?,
                    meta,
                    data,
                }))
            }
            tag::FOREIGN => {
                let reason = text(self.bytes()?)?.to_string();
                let fields = self.many(|decoder| Ok((decoder.bytes()?, decoder.bytes()?)))?;
                Ok(Body::Foreign(Arc::new(Foreign { fields, reason })))
            }
            _ => Err(Malformed("unknown kind of entry")),
        }
    }

    fn group(&mut self) -> Result<GroupRecord, Malformed> {
        Ok(GroupRecord {
            name: self.name()?,
            cursor: self.position()?,
            held: self.many(Decoder::held)?,
        })
    }

    fn held(&mut self) -> Result<HeldRecord, Malformed> {
        Ok(HeldRecord {
            position: self.position()?,
            due_unix_ms: self.u64()?,
            attempt: self.u32()?,
        })
    }

    fn sealed(&mut self) -> Result<Sealed, Malformed> {
        Ok(Sealed {
            number: self.u64()?,
            end: self.u64()?,
        })
    }

    fn lengths(&mut self) -> Result<[usize; 6], Malformed> {
        let mut lengths = [0; 6];
        for length in &mut lengths {
            *length = self.u32()? as usize;
        }
        Ok(lengths)
    }

    /// A count and so many items. Every item has at least a byte, so a wrong count ends early instead of allocating.
    fn many<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        (0..self.u32()?).map(|_| read(self)).collect()
    }

    fn topic(&mut self) -> Result<Topic, Malformed> {
        let length = self.u8()?.into();
        let name = text(self.slice(length)?)?;
        Topic::new(name).map_err(|_| Malformed("not the name of a topic"))
    }

    fn name(&mut self) -> Result<Name, Malformed> {
        let length = self.u8()?.into();
        let name = text(self.slice(length)?)?;
        Name::new(name).map_err(|_| Malformed("not a name"))
    }

    fn position(&mut self) -> Result<Position, Malformed> {
        Ok(Position::new(self.u64()?, self.u64()?))
    }

    fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.u32()? as usize;
        self.slice(length)
    }

    fn slice(&mut self, length: usize) -> Result<Bytes, Malformed> {
        let from = self.at;
        self.skip(length)?;
        Ok(self.frame.slice(from..self.at))
    }

    fn skip(&mut self, length: usize) -> Result<(), Malformed> {
        match self.at.checked_add(length) {
            Some(to) if to <= self.frame.len() => {
                self.at = to;
                Ok(())
            }
            _ => Err(Malformed("a record ends early")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let from = self.at;
        self.skip(N)?;
        let bytes = self
            .frame
            .get(from..self.at)
            .and_then(|b| b.try_into().ok());
        bytes.ok_or(Malformed("a record ends early"))
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }
}

impl Iterator for Decoder<'_> {
    type Item = Result<Record, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.frame.len() {
            return None;
        }
        let record = self.record();
        if record.is_err() {
            self.at = self.frame.len();
        }
        Some(record)
    }
}

/// The entry that stands at `at` in the body of `frame`. Its fields share the frame's memory.
pub(crate) fn entry(frame: &Bytes, at: u32) -> Result<(Position, Body), Malformed> {
    let mut decoder = Decoder {
        frame,
        at: at as usize,
    };
    Ok((decoder.position()?, decoder.body()?))
}

/// The bytes that it takes.
pub(crate) fn entry_size(frame: &Bytes, at: u32) -> Result<usize, Malformed> {
    let from = at as usize;
    let mut decoder = Decoder { frame, at: from };
    decoder.position()?;
    decoder.pass_body()?;
    Ok(decoder.at - from)
}

fn text(bytes: Bytes) -> Result<ByteString, Malformed> {
    ByteString::try_from(bytes).map_err(|_| Malformed("a name or id is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::super::encode::{Encoder, entry_bound, settle_bound};
    use super::super::frame::HEADER;
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn topic() -> impl Strategy<Value = Topic> {
        "[A-Za-z0-9._-]{1,200}(:dlq)?".prop_map(|name| Topic::new(name).unwrap())
    }

    fn name() -> impl Strategy<Value = Name> {
        "[A-Za-z0-9._-]{1,200}".prop_map(|name| Name::new(name).unwrap())
    }

    fn position() -> impl Strategy<Value = Position> {
        any::<(u64, u64)>().prop_map(|(major, minor)| Position::new(major, minor))
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..64).prop_map(Bytes::from)
    }

    fn body() -> impl Strategy<Value = Body> {
        let texts = proptest::array::uniform4(".{0,20}");
        let message = (texts, bytes(), bytes()).prop_map(|(texts, meta, data)| {
            let [id, kind, corr, reply] = texts.map(ByteString::from);
            Body::Message(Message {
                id,
                kind,
                corr,
                reply,
                meta,
                data,
            })
        });
        let foreign = (vec((bytes(), bytes()), 0..5), ".{0,20}");
        let foreign = foreign
            .prop_map(|(fields, reason)| Body::Foreign(Arc::new(Foreign { fields, reason })));
        prop_oneof![message, foreign]
    }

    fn held() -> impl Strategy<Value = HeldRecord> {
        (position(), any::<u64>(), any::<u32>()).prop_map(|(position, due_unix_ms, attempt)| {
            HeldRecord {
                position,
                due_unix_ms,
                attempt,
            }
        })
    }

    fn group() -> impl Strategy<Value = GroupRecord> {
        let parts = (name(), position(), vec(held(), 0..4));
        parts.prop_map(|(name, cursor, held)| GroupRecord { name, cursor, held })
    }

    fn change() -> impl Strategy<Value = Record> {
        let of_group =
            (topic(), name(), position(), 0..6u8).prop_map(|(topic, group, cursor, which)| {
                match which {
                    0 => Record::GroupCreated {
                        topic,
                        group,
                        cursor,
                    },
                    1 => Record::GroupMoved {
                        topic,
                        group,
                        from: Position::new(cursor.minor(), cursor.major()),
                        cursor,
                    },
                    2 => Record::GroupRemoved { topic, group },
                    3 | 4 => Record::GroupGone {
                        topic,
                        group,
                        cursor,
                        lost: which == 3,
                    },
                    _ => Record::Trimmed {
                        topic,
                        boundary: cursor,
                    },
                }
            });
        let checkpoint = (position(), vec(any::<(u64, u64)>(), 0..5));
        let checkpoint = checkpoint.prop_map(|(newest, segments)| Record::Checkpoint {
            newest,
            segments: segments
                .into_iter()
                .map(|(number, end)| Sealed { number, end })
                .collect(),
        });
        let answer = proptest::option::of((bytes(), bytes()));
        let key = || ".{0,20}".prop_map(ByteString::from);
        let done = (topic(), name(), key(), any::<u64>(), answer);
        let done = done.prop_map(|(topic, group, key, until, answer)| Record::DoneOnce {
            topic,
            group,
            key,
            until,
            answer,
        });
        let stored = (topic(), key(), position(), any::<u64>());
        let stored = stored.prop_map(|(topic, key, position, until)| Record::StoredOnce {
            topic,
            key,
            position,
            until,
        });
        let grants = vec((position(), any::<u32>()), 0..5);
        let delivered = (topic(), name(), grants);
        let delivered = delivered.prop_map(|(topic, group, grants)| Record::Delivered {
            topic,
            group,
            grants,
        });
        let holes = (topic(), vec(position(), 0..5));
        let divided = (topic(), any::<u32>());
        let parts = (topic(), position(), position(), any::<bool>());
        let of_topic =
            (parts, vec(group(), 0..3)).prop_map(|((topic, last, boundary, removed), groups)| {
                Record::Topic(TopicRecord {
                    topic,
                    last,
                    boundary,
                    removed,
                    groups,
                })
            });
        prop_oneof![
            of_group,
            checkpoint,
            of_topic,
            topic().prop_map(|topic| Record::TopicRemoved { topic }),
            any::<u64>().prop_map(|number| Record::SegmentRemoved { number }),
            Just(Record::Closed),
            done,
            stored,
            delivered,
            holes.prop_map(|(topic, positions)| Record::Holes { topic, positions }),
            divided.prop_map(|(topic, partitions)| Record::Divided { topic, partitions }),
            (topic(), any::<u64>()).prop_map(|(topic, epoch)| Record::Epoch { topic, epoch }),
            vec(position(), 0..5).prop_map(|ids| Record::Waiting { ids }),
        ]
    }

    fn frame(encoder: &mut Encoder) -> Bytes {
        Bytes::copy_from_slice(&encoder.frame()[HEADER..])
    }

    /// As older versions wrote it.
    #[test]
    fn a_move_that_does_not_say_from_where_is_read() {
        let mut frame = vec![kind::GROUP_MOVED, 1, b't', 1, b'g'];
        for number in [7u64, 1] {
            frame.extend_from_slice(&number.to_le_bytes());
        }
        let read: Result<Vec<Record>, Malformed> = Decoder::new(&frame.into()).collect();
        let moved = Record::GroupMoved {
            topic: Topic::new("t").unwrap(),
            group: Name::new("g").unwrap(),
            from: Position::ZERO,
            cursor: Position::new(7, 1),
        };
        assert_eq!(read.unwrap(), [moved]);
    }

    proptest! {
        #[test]
        fn entries_and_settlements_round_trip(
            (source, group, at) in (topic(), name(), position()),
            returned in held(),
            entries in vec((topic(), position(), body()), 0..5),
        ) {
            let mut encoder = Encoder::default();
            encoder.begin();
            let mut bound = 0;
            let mut placed = Vec::new();
            for (topic, position, body) in &entries {
                bound += entry_bound(topic, body);
                let at = encoder.append(topic, *position, body);
                placed.push(Placed { topic: topic.clone(), position: *position, at });
            }
            encoder.settle(&source, &group, at, entries.len() as u32);
            let mut outputs = Vec::new();
            for (topic, position, body) in &entries {
                bound += entry_bound(topic, body);
                let at = encoder.output(topic, *position, body);
                outputs.push(Placed { topic: topic.clone(), position: *position, at });
            }
            encoder.retry(&source, &group, returned);
            bound += 2 * settle_bound(&source, &group);
            encoder.taken(&source, at, entries.len() as u32);
            bound += settle_bound(&source, &group);
            let mut moved = Vec::new();
            for (topic, position, body) in &entries {
                bound += entry_bound(topic, body);
                let at = encoder.output(topic, *position, body);
                moved.push(Placed { topic: topic.clone(), position: *position, at });
            }
            let mut later = Vec::new();
            for (topic, position, body) in &entries {
                bound += 2 * (entry_bound(topic, body) + 16);
                let at = encoder.scheduled(topic, *position, body);
                later.push(Record::Scheduled(Placed { topic: topic.clone(), position: *position, at }));
                let at = encoder.appeared(returned.position, topic, *position, body);
                let placed = Placed { topic: topic.clone(), position: *position, at };
                later.push(Record::Appeared { id: returned.position, placed });
            }

            let frame = frame(&mut encoder);
            prop_assert!(frame.len() <= bound);
            for (placed, (_, position, body)) in placed.iter().chain(&outputs).zip(entries.iter().cycle()) {
                prop_assert_eq!(&entry(&frame, placed.at).unwrap(), &(*position, body.clone()));
                let size = entry_size(&frame, placed.at).unwrap();
                prop_assert!((body.size()..entry_bound(&placed.topic, body)).contains(&size));
                prop_assert_eq!(&body.clone().compact(), body);
            }
            let mut expected: Vec<Record> = placed.into_iter().map(Record::Append).collect();
            expected.push(Record::Settle { topic: source.clone(), group: group.clone(), position: at, outputs });
            expected.push(Record::Retry { topic: source.clone(), group, held: returned });
            expected.push(Record::Taken { topic: source, position: at, outputs: moved });
            expected.extend(later);
            let read: Result<Vec<Record>, Malformed> = Decoder::new(&frame).collect();
            prop_assert_eq!(read.unwrap(), expected);
        }

        #[test]
        fn changes_round_trip(changes in vec(change(), 0..8)) {
            let mut encoder = Encoder::default();
            encoder.begin();
            changes.iter().for_each(|change| encoder.record(change));
            let frame = frame(&mut encoder);
            let read: Result<Vec<Record>, Malformed> = Decoder::new(&frame).collect();
            prop_assert_eq!(read.unwrap(), changes);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), at in any::<u32>()) {
            let frame = Bytes::from(bytes);
            let _ = Decoder::new(&frame).count();
            let _ = entry(&frame, at % 256);
            let _ = entry(&frame, at);
        }
    }
}
