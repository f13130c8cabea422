//! A SOCKS5 proxy on the loopback that notes what it was asked, and the network in memory.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::*;

/// A name that no resolver knows (RFC 6761).
const UNKNOWN: &str = "node.invalid";

/// What a client asked of the proxy.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    credentials: Option<(String, String)>,
    /// The address type and the address; 3 is a name.
    target: (u8, Vec<u8>),
    port: u16,
}

/// Serves one client: reads its request, answers with `code`, and sends "hello" if that is 0. Wants credentials if they are
/// offered, and refuses them by `accepts`.
async fn serve(mut client: TcpStream, code: u8, accepts: bool) -> std::io::Result<Option<Request>> {
    let mut methods = vec![0; 2];
    client.read_exact(&mut methods).await?;
    assert_eq!(methods[0], 5);
    methods.resize(usize::from(methods[1]), 0);
    client.read_exact(&mut methods).await?;
    let credentials = if methods.contains(&2) {
        client.write_all(&[5, 2]).await?;
        assert_eq!(client.read_u8().await?, 1);
        let mut texts = Vec::new();
        for _ in 0..2 {
            let mut text = vec![0; client.read_u8().await?.into()];
            client.read_exact(&mut text).await?;
            texts.push(String::from_utf8(text).unwrap());
        }
        client.write_all(&[1, u8::from(!accepts)]).await?;
        let password = texts.pop().unwrap();
        if !accepts {
            return Ok(None);
        }
        Some((texts.pop().unwrap(), password))
    } else {
        client.write_all(&[5, 0]).await?;
        None
    };
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    assert_eq!(head[..3], [5, 1, 0]);
    let length = match head[3] {
        1 => 4,
        4 => 16,
        _ => client.read_u8().await?.into(),
    };
    let mut host = vec![0; length];
    client.read_exact(&mut host).await?;
    let port = client.read_u16().await?;
    client.write_all(&[5, code, 0, 1, 127, 0, 0, 1, 0, 9]).await?;
    if code == 0 {
        client.write_all(b"hello").await?;
    }
    Ok(Some(Request { credentials, target: (head[3], host), port }))
}

async fn proxy(code: u8, accepts: bool) -> (Proxy, JoinHandle<Vec<Request>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().into();
    let task = tokio::spawn(async move {
        let mut requests = Vec::new();
        for _ in 0..2 {
            let (client, _) = listener.accept().await.unwrap();
            requests.extend(serve(client, code, accepts).await.unwrap());
        }
        requests
    });
    (Proxy::new(address), task)
}

fn address(host: &str, port: u16) -> PeerAddress {
    PeerAddress { host: host.to_owned(), port }
}

fn through(proxy: Proxy) -> Tcp {
    Tcp::with_seed(TcpOptions { proxy: Some(proxy), ..TcpOptions::default() }, 7)
}

const LIMIT: Duration = Duration::from_secs(20);

async fn greeting(dialer: &dyn Dialer, to: &PeerAddress) -> String {
    let mut stream = connect(dialer, to, LIMIT).await.unwrap_or_else(|error| panic!("{to}: {error}"));
    let mut text = [0; 5];
    stream.stream.read_exact(&mut text).await.unwrap();
    String::from_utf8(text.to_vec()).unwrap()
}

async fn failure(dialer: &dyn Dialer, to: &PeerAddress) -> (io::ErrorKind, String) {
    match connect(dialer, to, LIMIT).await {
        Err(ConnectError::Io(error)) => (error.kind(), ConnectError::Io(error).to_string()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("connected"),
    }
}

#[tokio::test]
async fn names_are_left_to_the_proxy() {
    let onion = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
    for (first, second) in [(UNKNOWN, onion), ("203.0.113.9", "2001:db8::7")] {
        let (proxy, requests) = proxy(0, true).await;
        let dialer = through(proxy);
        assert_eq!(greeting(&dialer, &address(first, 8333)).await, "hello");
        assert_eq!(greeting(&dialer, &address(second, 18444)).await, "hello");
        for (request, (host, port)) in requests.await.unwrap().iter().zip([(first, 8333), (second, 18444)]) {
            let target = match host.parse() {
                Ok(std::net::IpAddr::V4(ip)) => (1, ip.octets().to_vec()),
                Ok(std::net::IpAddr::V6(ip)) => (4, ip.octets().to_vec()),
                Err(_) => (3, host.as_bytes().to_vec()),
            };
            assert_eq!(*request, Request { credentials: None, target, port });
        }
    }
}

#[tokio::test]
async fn seeds_are_left_to_the_proxy() {
    // Nothing listens there, and nothing is asked.
    let dialer = through(Proxy::new(address("127.0.0.1", 1)));
    assert_eq!(dialer.resolve(UNKNOWN, 8333).await.unwrap(), [address(UNKNOWN, 8333)]);
    let direct = Tcp::default();
    assert!(direct.resolve(UNKNOWN, 8333).await.is_err());
    assert_eq!(direct.resolve("127.0.0.1", 8333).await.unwrap(), [address("127.0.0.1", 8333)]);
}

#[tokio::test]
async fn hidden_names_are_never_looked_up() {
    let onion = ["abc.onion", "a.b.ONION", "abc.onion."];
    for host in onion {
        let (kind, text) = failure(&Tcp::default(), &address(host, 8333)).await;
        assert_eq!(
            (kind, &text[..]),
            (io::ErrorKind::Unsupported, "onion addresses are reached through a proxy only")
        );
        assert!(Tcp::default().resolve(host, 8333).await.is_err());
    }
    let (_, text) = failure(&Tcp::default(), &address("abc.b32.i2p", 8333)).await;
    assert_eq!(text, "i2p addresses are reached through a proxy only");

    // A proxy for onion addresses alone leaves the others alone.
    let (proxy, requests) = proxy(0, true).await;
    let options = TcpOptions { onion_proxy: Some(proxy), ..TcpOptions::default() };
    let dialer = Tcp::new(options);
    assert_eq!(dialer.resolve("abc.onion", 1).await.unwrap(), [address("abc.onion", 1)]);
    for host in &onion[..2] {
        assert_eq!(greeting(&dialer, &address(host, 8333)).await, "hello");
    }
    let asked: Vec<_> = requests.await.unwrap().into_iter().map(|request| request.target).collect();
    assert_eq!(asked, [(3, b"abc.onion".to_vec()), (3, b"a.b.ONION".to_vec())]);
    let (kind, text) = failure(&dialer, &address("abc.b32.i2p", 8333)).await;
    assert_eq!(kind, io::ErrorKind::Unsupported, "{text}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let direct = dialer.dial(&listener.local_addr().unwrap().into()).await;
    assert!(direct.is_ok());
}

#[tokio::test]
async fn credentials_are_given_and_isolation_makes_them_up() {
    let (mut known, requests) = proxy(0, true).await;
    let (user, password) = ("me".to_owned(), "secret".to_owned());
    known.authentication = ProxyAuthentication::Password { user: user.clone(), password: password.clone() };
    assert!(!format!("{known:?}").contains("secret"));
    let dialer = through(known);
    greeting(&dialer, &address(UNKNOWN, 1)).await;
    greeting(&dialer, &address(UNKNOWN, 1)).await;
    for request in requests.await.unwrap() {
        assert_eq!(request.credentials, Some((user.clone(), password.clone())));
    }

    let (mut isolating, requests) = proxy(0, true).await;
    isolating.authentication = ProxyAuthentication::Isolate;
    let dialer = through(isolating);
    greeting(&dialer, &address(UNKNOWN, 1)).await;
    greeting(&dialer.clone(), &address(UNKNOWN, 1)).await;
    let requests = requests.await.unwrap();
    assert!(requests.iter().all(|request| request.credentials.is_some()));
    assert_ne!(requests[0].credentials, requests[1].credentials);
}

#[tokio::test]
async fn a_proxy_that_refuses_says_why() {
    let (refusing, _requests) = proxy(5, true).await;
    let at = refusing.address.clone();
    let (kind, text) = failure(&through(refusing), &address(UNKNOWN, 1)).await;
    assert_eq!(kind, io::ErrorKind::ConnectionRefused);
    assert_eq!(text, format!("the proxy {at} does not connect: Connection refused"));

    let (mut strict, _requests) = proxy(0, false).await;
    strict.authentication = ProxyAuthentication::Isolate;
    let (kind, text) = failure(&through(strict), &address(UNKNOWN, 1)).await;
    assert_eq!(kind, io::ErrorKind::PermissionDenied, "{text}");

    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = PeerAddress::from(unused.local_addr().unwrap());
    drop(unused);
    let (kind, text) = failure(&through(Proxy::new(at.clone())), &address(UNKNOWN, 1)).await;
    assert_eq!(kind, io::ErrorKind::ConnectionRefused);
    assert!(text.starts_with(&format!("the proxy {at} is not reached: ")), "{text}");

    let long = "a".repeat(256);
    let (open, _requests) = proxy(0, true).await;
    let (kind, text) = failure(&through(open), &address(&long, 1)).await;
    assert_eq!(kind, io::ErrorKind::InvalidInput, "{text}");
}

#[tokio::test]
async fn a_proxy_that_never_answers_times_out() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialer = through(Proxy::new(silent.local_addr().unwrap().into()));
    // The clock runs to the limit once nothing else can happen.
    tokio::time::pause();
    let result = connect(&dialer, &address(UNKNOWN, 1), LIMIT).await;
    assert!(matches!(result, Err(ConnectError::TimedOut)));
}

#[tokio::test(start_paused = true)]
async fn listeners_in_memory_are_found_by_address() {
    let network = Memory::new(4);
    let (here, there) = (address("here", 1), address("there", 2));
    let mut listener = network.listen(here.clone()).unwrap();
    assert_eq!(*listener.address(), here);
    assert_eq!(network.listen(here.clone()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    assert_eq!(failure(&network, &there).await.0, io::ErrorKind::ConnectionRefused);

    let mut dialled = connect(&network, &here, LIMIT).await.unwrap();
    let mut accepted = listener.accept().await;
    let both = async {
        tokio::join!(dialled.stream.write_all(b"over four"), async {
            let mut text = [0; 9];
            accepted.read_exact(&mut text).await.unwrap();
            text
        })
    };
    assert_eq!(both.await.1, *b"over four");
    drop(accepted);
    assert_eq!(dialled.stream.read(&mut [0; 1]).await.unwrap(), 0, "closed");

    network.name("seed", vec![here.clone(), there.clone()]).unwrap();
    assert_eq!(network.resolve("seed", 9).await.unwrap(), [here.clone(), there]);
    assert!(network.resolve("weed", 9).await.is_err());

    // A listener that accepts nobody lets so many wait and the rest time out; one that is gone refuses.
    let mut waiting = Vec::new();
    while let Ok(stream) = connect(&network, &here, LIMIT).await {
        waiting.push(stream);
    }
    assert_eq!(waiting.len(), 16);
    assert!(matches!(connect(&network, &here, LIMIT).await, Err(ConnectError::TimedOut)));
    drop(listener);
    assert_eq!(failure(&network, &here).await.0, io::ErrorKind::ConnectionRefused);
    assert!(network.listen(here).is_ok());
}
