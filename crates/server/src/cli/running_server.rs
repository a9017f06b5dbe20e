//! The servers that run beside this program: processes of the same program file that listen.

use std::net::SocketAddr;

/// Where they listen. Processes of other users are not seen.
#[cfg(target_os = "linux")]
pub(super) fn addresses() -> Vec<SocketAddr> {
    let Ok((own, processes)) = own_program().and_then(|own| Ok((own, procfs::process::all_processes()?))) else {
        return Vec::new();
    };
    let others = processes.flatten().filter(|process| process.pid() != own.0);
    let same = others.filter(|process| process.exe().is_ok_and(|program| program == own.1));
    // One that has just ended, or cannot be inspected, listens nowhere.
    let mut addresses: Vec<_> = same.filter_map(|process| listening(&process).ok()).flatten().collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// On other systems no server is found.
#[cfg(not(target_os = "linux"))]
pub(super) fn addresses() -> Vec<SocketAddr> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn own_program() -> procfs::ProcResult<(i32, std::path::PathBuf)> {
    let own = procfs::process::Process::myself()?;
    Ok((own.pid(), own.exe()?))
}

#[cfg(target_os = "linux")]
fn listening(process: &procfs::process::Process) -> procfs::ProcResult<Vec<SocketAddr>> {
    use procfs::net::TcpState;
    use procfs::process::FDTarget;

    let socket = |target| if let FDTarget::Socket(inode) = target { Some(inode) } else { None };
    let own: Vec<_> = process.fd()?.flatten().filter_map(|file| socket(file.target)).collect();
    // A machine without IPv6 has no second table.
    let sockets = process.tcp()?.into_iter().chain(process.tcp6().unwrap_or_default());
    let listening = sockets.filter(|socket| socket.state == TcpState::Listen && own.contains(&socket.inode));
    Ok(listening.map(|socket| socket.local_address).collect())
}
