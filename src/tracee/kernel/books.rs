//! What the kernel's own books say of a task that ends: taskstats, told over generic netlink
//! (Documentation/accounting/taskstats.rst). It needs CAP_NET_ADMIN, and the first namespaces of
//! users, processes and networks; elsewhere spaces that end are not checked by it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsFd;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator, ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::timeline::HighWater;
use crate::units::{Bytes, Tid};

use super::rings::now;

/// Of include/uapi/linux/taskstats.h.
const FAMILY: &str = "TASKSTATS";
const TASKSTATS_VERSION: u8 = 1;
const TASKSTATS_CMD_GET: u8 = 1;
const TASKSTATS_CMD_ATTR_REGISTER_CPUMASK: u16 = 3;
const TASKSTATS_TYPE_PID: u16 = 1;
const TASKSTATS_TYPE_STATS: u16 = 3;
const TASKSTATS_TYPE_AGGR_PID: u16 = 4;
/// Where `hiwater_rss` and `hiwater_vm` are in struct taskstats, which only ever grows at its end; in
/// KiB.
const HIWATER_RSS: usize = 200;
const HIWATER_VM: usize = 208;
/// A message is some 700 bytes; a ten times larger one would have an end that is of no interest.
const LARGEST_MESSAGE: usize = 8 << 10;
/// Bytes of messages that the kernel keeps until they are read.
const KEPT: usize = 8 << 20;
/// For so long after it was read, in nanoseconds, it is known whom a message is about: numbers are used
/// again.
const REMEMBERED: u64 = 5_000_000_000;

/// Listens to what the kernel tells of tasks that end.
#[derive(Debug)]
pub(super) struct Books {
    socket: Socket,
    told: HashMap<Tid, VecDeque<(u64, HighWater)>>,
    /// When each of them was read, oldest first.
    order: VecDeque<(u64, Tid)>,
    buffer: Vec<u8>,
}

impl Books {
    /// Begins to listen, where this may.
    pub(super) fn open() -> io::Result<Books> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel answers while it is asked.
        socket.set_non_blocking(true)?;
        let mut buffer = Vec::with_capacity(LARGEST_MESSAGE);
        let mut ask = GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(FAMILY.to_owned())],
        });
        ask.finalize();
        send(&socket, NetlinkMessage::from(ask), NLM_F_REQUEST)?;
        let family = loop {
            match receive::<GenlMessage<GenlCtrl>>(&socket, &mut buffer)? {
                Some(NetlinkPayload::InnerMessage(message)) => {
                    let id = message.payload.nlas.iter().find_map(|nla| match nla {
                        GenlCtrlAttrs::FamilyId(id) => Some(*id),
                        _ => None,
                    });
                    break id.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                }
                Some(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                _ => {}
            }
        };
        setsockopt(&socket.as_fd(), RcvBufForce, &KEPT)?;
        let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
        let mut listen = GenlMessage::from_payload(Taskstats::Listen(possible.trim().to_owned()));
        listen.set_resolved_family_id(family);
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        send(&socket, NetlinkMessage::from(listen), flags)?;
        let mut books = Books {
            socket,
            told: HashMap::new(),
            order: VecDeque::new(),
            buffer,
        };
        loop {
            match receive::<GenlMessage<Taskstats>>(&books.socket, &mut books.buffer)? {
                Some(NetlinkPayload::Error(error)) if error.code.is_none() => return Ok(books),
                Some(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                _ => {}
            }
        }
    }

    /// Takes what has been told until now. Of a task whose end is in a ring, the kernel has told it
    /// by then: do_exit() does that first.
    pub(super) fn read(&mut self) {
        let at = now();
        loop {
            let told = receive::<GenlMessage<Taskstats>>(&self.socket, &mut self.buffer);
            match told {
                Ok(Some(NetlinkPayload::InnerMessage(message))) => {
                    if let Taskstats::Ended(tid, high_water) = message.payload {
                        self.told
                            .entry(tid)
                            .or_default()
                            .push_back((at, high_water));
                        self.order.push_back((at, tid));
                    }
                }
                Ok(_) => {}
                // Some were dropped: whose is not known.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.forget(u64::MAX),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }

    /// What was told of a task whose end is being worked on, and of the space that it was in.
    pub(super) fn of(&mut self, tid: Tid) -> Option<HighWater> {
        let told = self.told.get_mut(&tid)?;
        let first = told.pop_front();
        if told.is_empty() {
            self.told.remove(&tid);
        }
        first.map(|(_, high_water)| high_water)
    }

    /// All records up to `time` have been worked on.
    pub(super) fn worked_on(&mut self, time: u64) {
        self.forget(time.saturating_sub(REMEMBERED));
    }

    fn forget(&mut self, before: u64) {
        while let Some(&(at, tid)) = self.order.front()
            && at < before
        {
            self.order.pop_front();
            let of_then =
                |told: &VecDeque<(u64, HighWater)>| told.front().is_some_and(|(of, _)| *of == at);
            if self.told.get(&tid).is_some_and(of_then) {
                self.of(tid);
            }
        }
    }
}

/// What is said, and what is told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Taskstats {
    /// Asks to be told of every end on these CPUs.
    Listen(String),
    /// A task has ended.
    Ended(Tid, HighWater),
    /// Something else.
    Other,
}

impl Taskstats {
    fn attributes(&self) -> Vec<DefaultNla> {
        match self {
            Taskstats::Listen(cpus) => {
                let text = [cpus.as_bytes(), b"\0"].concat();
                vec![DefaultNla::new(TASKSTATS_CMD_ATTR_REGISTER_CPUMASK, text)]
            }
            Taskstats::Ended(..) | Taskstats::Other => Vec::new(),
        }
    }
}

impl GenlFamily for Taskstats {
    fn family_name() -> &'static str {
        FAMILY
    }

    fn command(&self) -> u8 {
        TASKSTATS_CMD_GET
    }

    fn version(&self) -> u8 {
        TASKSTATS_VERSION
    }
}

impl Emitable for Taskstats {
    fn buffer_len(&self) -> usize {
        self.attributes().as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes().as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Taskstats {
    fn parse_with_param(payload: &[u8], _: GenlHeader) -> Result<Taskstats, DecodeError> {
        for attribute in NlasIterator::new(payload) {
            let attribute = attribute?;
            if attribute.kind() == TASKSTATS_TYPE_AGGR_PID
                && let Some((tid, high_water)) = ended(attribute.value())
            {
                return Ok(Taskstats::Ended(tid, high_water));
            }
        }
        Ok(Taskstats::Other)
    }
}

/// The number of the task, and its figures; `None` of a task that had no memory.
fn ended(aggregate: &[u8]) -> Option<(Tid, HighWater)> {
    let (mut tid, mut high_water) = (None, None);
    for attribute in NlasIterator::new(aggregate) {
        let attribute = attribute.ok()?;
        let value = attribute.value();
        match attribute.kind() {
            TASKSTATS_TYPE_PID => {
                tid = value
                    .first_chunk()
                    .map(|bytes| Tid(i32::from_ne_bytes(*bytes)));
            }
            TASKSTATS_TYPE_STATS => {
                let kib = |at: usize| {
                    let bytes = value.get(at..)?.first_chunk()?;
                    Some(Bytes(u64::from_ne_bytes(*bytes).saturating_mul(1024)))
                };
                high_water = Some(HighWater {
                    mapped: kib(HIWATER_VM)?,
                    resident: kib(HIWATER_RSS)?,
                });
            }
            _ => {}
        }
    }
    let high_water = high_water.filter(|high_water| high_water.mapped != Bytes(0));
    Some((tid?, high_water?))
}

fn send<T: NetlinkSerializable>(
    socket: &Socket,
    mut message: NetlinkMessage<T>,
    flags: u16,
) -> io::Result<()> {
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

/// The next message; `None` for one that cannot be read.
fn receive<T: NetlinkDeserializable>(
    socket: &Socket,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<NetlinkPayload<T>>> {
    buffer.clear();
    socket.recv(buffer, 0)?;
    let message = NetlinkMessage::<T>::deserialize(buffer);
    Ok(message.ok().map(|message| message.payload))
}
