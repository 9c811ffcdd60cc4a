//! For brokers that wrap another one and change some of what it does.

/// Passes [`Leases`](streamerson_core::Leases) and [`Upkeep`](streamerson_core::Upkeep) of a broker on to a field of it; with
/// `FIELD unless METHOD`, what that async method of the broker answers for the name of an operation is its failure.
#[macro_export]
macro_rules! pass_on_upkeep {
    ($broker:ty, $($inner:tt)+) => {
        $crate::pass_on! { $broker, $($inner)+, ::streamerson_core::Leases;
            acquire(topic: &'a ::streamerson_core::Topic, name: &'a ::streamerson_core::Name,
                holder: &'a ::streamerson_core::Name, ttl: ::std::time::Duration) -> ::streamerson_core::Lease;
            release(topic: &'a ::streamerson_core::Topic, name: &'a ::streamerson_core::Name,
                holder: &'a ::streamerson_core::Name) -> bool;
            leases(topic: &'a ::streamerson_core::Topic) -> ::std::vec::Vec<::streamerson_core::Lease>;
        }
        $crate::pass_on! { $broker, $($inner)+, ::streamerson_core::Upkeep;
            range(topic: &'a ::streamerson_core::Topic, after: ::streamerson_core::Position, max: usize)
                -> ::std::vec::Vec<::streamerson_core::Entry>;
            pending(topic: &'a ::streamerson_core::Topic, group: &'a ::streamerson_core::Name,
                after: ::streamerson_core::Position, max: usize)
                -> ::std::vec::Vec<::streamerson_core::Pending>;
            seek(topic: &'a ::streamerson_core::Topic, group: &'a ::streamerson_core::Name,
                to: ::streamerson_core::Start, fence: ::std::option::Option<&'a ::streamerson_core::Fence>) -> ();
            take(topic: &'a ::streamerson_core::Topic, position: ::streamerson_core::Position,
                outputs: ::std::vec::Vec<::streamerson_core::Append>) -> bool;
            remove_group(topic: &'a ::streamerson_core::Topic, group: &'a ::streamerson_core::Name) -> bool;
            remove_topic(topic: &'a ::streamerson_core::Topic) -> bool;
            remove_members(topic: &'a ::streamerson_core::Topic, group: &'a ::streamerson_core::Name,
                silent: ::std::time::Duration) -> ::std::vec::Vec<::streamerson_core::Name>;
            divide(topic: &'a ::streamerson_core::Topic, partitions: u32) -> u32;
            partitions(topic: &'a ::streamerson_core::Topic) -> u32;
        }
    };
}

/// Passes the operations of one trait on.
#[doc(hidden)]
#[macro_export]
macro_rules! pass_on {
    ($broker:ty, $inner:ident, $trait:path; $($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        impl $trait for $broker {
            $(fn $name<'a>(&'a self, $($arg: $type),*)
                -> ::futures::future::BoxFuture<'a, ::streamerson_core::Result<$answer>> {
                self.$inner.$name($($arg),*)
            })*
        }
    };
    ($broker:ty, $inner:ident unless $refusal:ident, $trait:path;
     $($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        impl $trait for $broker {
            $(fn $name<'a>(&'a self, $($arg: $type),*)
                -> ::futures::future::BoxFuture<'a, ::streamerson_core::Result<$answer>> {
                ::std::boxed::Box::pin(async move {
                    match self.$refusal(stringify!($name)).await {
                        Some(error) => Err(error),
                        None => self.$inner.$name($($arg),*).await,
                    }
                })
            })*
        }
    };
}
