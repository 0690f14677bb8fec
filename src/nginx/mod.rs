//! The glue to nginx: all calls from it and to it, behind small safe types.
//!
//! [`modules`] is what nginx loads. [`conf`] reads directives into the [`conf::main::MainConf`] of a cycle; [`shm`] makes
//! the zones that it names; [`http`] and [`stream`] serve what was configured, with the [`variable`]s that both have;
//! [`upstream`] binds clients to servers, [`limit`] stands before nginx's limits of requests; [`wake`] rouses the agent,
//! which [`process`] runs in one worker; what takes long goes on in [`turns`].

mod ffi;
mod log;

mod conf;
mod modules;
mod process;
mod shm;

mod http;
mod limit;
mod status;
mod stream;
mod turns;
mod upstream;
mod variable;
mod wake;
