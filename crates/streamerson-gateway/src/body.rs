//! Reading the body of a request: bounded in size and in time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::poll_fn;
use http_body::{Body, Frame};

use crate::codes;
use crate::problem::Failure;

/// What of a body has arrived with its head.
#[derive(Debug)]
pub(crate) enum First {
    /// All of it. As most bodies are: neither copied nor timed.
    Whole(Bytes),
    /// So much.
    Part(Bytes),
}

/// Takes what of the body is there, unless the body is larger than `limit`.
pub(crate) fn poll_first<B>(
    mut body: Pin<&mut B>,
    limit: usize,
    cx: &mut Context<'_>,
) -> Result<First, Failure>
where
    B: Body<Data = Bytes>,
{
    if body.is_end_stream() {
        return Ok(First::Whole(Bytes::new()));
    }
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    let Poll::Ready(first) = body.as_mut().poll_frame(cx) else {
        return Ok(First::Part(Bytes::new()));
    };
    let first = first.map_or_else(|| Ok(Bytes::new()), data)?;
    if first.len() > limit {
        return Err(too_large(limit));
    }
    Ok(match body.is_end_stream() {
        true => First::Whole(first),
        false => First::Part(first),
    })
}

/// The whole of a body of which `first` has arrived, unless it is larger than `limit` or takes longer than `timeout`.
pub(crate) async fn rest<B>(
    body: Pin<&mut B>,
    first: Bytes,
    limit: usize,
    timeout: Duration,
) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes> + Send,
{
    match tokio::time::timeout(timeout, collect(body, first, limit)).await {
        Ok(read) => read,
        Err(_) => Err(Failure::new(
            codes::REQUEST_TIMEOUT,
            format!("the body did not arrive within {timeout:?}"),
        )),
    }
}

/// The data of a frame; trailers have no place in a message.
fn data<E>(frame: Result<Frame<Bytes>, E>) -> Result<Bytes, Failure> {
    let frame = frame.map_err(|_| {
        Failure::new(
            codes::INCOMPLETE_BODY,
            "the connection failed, or the body is not framed as HTTP says",
        )
    })?;
    Ok(frame.into_data().unwrap_or_default())
}

async fn collect<B>(mut body: Pin<&mut B>, mut first: Bytes, limit: usize) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes> + Send,
{
    let to_come = body.size_hint().exact().unwrap_or(0).min(limit as u64) as usize;
    let expected = first.len() + to_come;
    let mut rest = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let data = data(frame)?;
        let so_far = first.len() + rest.len();
        if so_far + data.len() > limit {
            return Err(too_large(limit));
        }
        if so_far == 0 {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(expected.max(so_far + data.len()));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}

fn too_large(limit: usize) -> Failure {
    Failure::new(
        codes::BODY_TOO_LARGE,
        format!("this route accepts at most {limit} bytes"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};
    use std::convert::Infallible;
    use std::pin::pin;

    const SOON: Duration = Duration::from_secs(5);

    async fn read<B>(body: B, limit: usize, timeout: Duration) -> Result<Bytes, Failure>
    where
        B: Body<Data = Bytes> + Send,
    {
        let mut body = pin!(body);
        let first = poll_fn(|cx| Poll::Ready(poll_first(body.as_mut(), limit, cx))).await?;
        match first {
            First::Whole(whole) => Ok(whole),
            First::Part(first) => rest(body, first, limit, timeout).await,
        }
    }

    fn chunked(chunks: &'static [&'static str]) -> impl Body<Data = Bytes, Error = Infallible> {
        let frames = chunks
            .iter()
            .map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes()))));
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn a_body_of_one_piece_is_not_copied() {
        let sent = Bytes::from(vec![7; 1000]);
        let read = read(Full::new(sent.clone()), 1000, SOON).await.unwrap();
        assert_eq!(read.as_ptr(), sent.as_ptr());
    }

    #[tokio::test]
    async fn pieces_are_joined_up_to_the_limit() {
        assert_eq!(
            read(chunked(&["ab", "", "cd", "e"]), 5, SOON)
                .await
                .unwrap(),
            "abcde"
        );
        let refused = read(chunked(&["ab", "cd", "ef"]), 5, SOON)
            .await
            .unwrap_err();
        assert_eq!(refused.code, codes::BODY_TOO_LARGE);
    }

    #[tokio::test]
    async fn a_declared_length_over_the_limit_is_refused_unread() {
        let refused = read(Full::new(Bytes::from(vec![0; 11])), 10, SOON)
            .await
            .unwrap_err();
        assert_eq!(refused.code, codes::BODY_TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let endless = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let refused = read(endless, 10, SOON).await.unwrap_err();
        assert_eq!(refused.code, codes::REQUEST_TIMEOUT);
    }
}
