//! First packets: what clients may ask for, and what they are told about the rest.

use crate::support::Blueprint;
use crate::support::Ended;
use crate::support::House;
use crate::support::Wire;
use pgsteer::clock;
use std::io::Read as _;
use std::time::Duration;

const SSL: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
const GSSENC: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 48];

fn startup(major: u16, minor: u16, params: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&major.to_be_bytes());
    body.extend_from_slice(&minor.to_be_bytes());
    for (name, value) in params {
        for text in [name, value] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [length.to_be_bytes().to_vec(), body].concat()
}

const WHO: &[(&str, &str)] = &[("user", "postgres"), ("database", "postgres")];

#[test]
fn each_first_packet_gets_its_answer() {
    let house = Blueprint::new()
        .servers(|plan| plan.standbys(0))
        .toml("[limits]\nlogin_timeout = \"5s\"")
        .build();
    wishes(&house);
    refusals(&house);
    wishes_without_end(&house);
    slow_ones(&house);
    house.wire().run("SELECT 1");
    assert!(!house.proxy.log().contains("panicked"));
}

fn knock(house: &House) -> Wire {
    Wire::connect(house.proxy.address()).unwrap()
}

fn one_byte(wire: &mut Wire) -> u8 {
    let mut answer = [0];
    wire.stream.read_exact(&mut answer).unwrap();
    answer[0]
}

fn wishes(house: &House) {
    // No TLS and no GSSAPI here: the client may go on in plain.
    for wish in [SSL, GSSENC] {
        let mut wire = knock(house);
        wire.send(wish).unwrap();
        assert_eq!(one_byte(&mut wire), b'N');
        assert_eq!(wire.ask(&startup(3, 0, WHO)).ended, Ended::Ready('I'));
    }
    let mut wire = knock(house);
    wire.send(GSSENC).unwrap();
    assert_eq!(one_byte(&mut wire), b'N');
    wire.send(SSL).unwrap();
    assert_eq!(one_byte(&mut wire), b'N');
    assert_eq!(wire.ask(&startup(3, 0, WHO)).ended, Ended::Ready('I'));
    // A newer minor version and an unknown option are offered 3.2.
    let mut wire = knock(house);
    wire.send(&startup(3, 99, &[WHO, &[("_pq_.shiny", "1")]].concat())).unwrap();
    let offer = wire.message().unwrap();
    assert_eq!(offer[0], b'v', "{offer:?}");
    assert!(String::from_utf8_lossy(&offer).contains("_pq_.shiny"));
    assert_eq!(wire.reply().ended, Ended::Ready('I'));
    assert_eq!(wire.value("SELECT 1"), "1");
}

fn refusals(house: &House) {
    let replication = |value: &'static str| [WHO, &[("replication", value)]].concat();
    let long = "x".repeat(9000);
    let refused = [
        (startup(2, 0, WHO), "0A000", "protocol 2.0"),
        (startup(4, 0, WHO), "0A000", "protocol 4.0"),
        (startup(3, 0, &replication("perhaps")), "22023", "replication"),
        (startup(3, 0, &[]), "28000", "no PostgreSQL user name"),
        (startup(3, 0, &[("user", "postgres"), ("database", "none")]), "3D000", "none"),
        (startup(3, 0, &[("user", "postgres"), ("options", "--x y")]), "42601", "argument"),
        (startup(3, 0, &[("user", "postgres"), ("x", &long), ("y", &long)]), "08P01", "length"),
        (vec![0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0], "08P01", "length"),
        (vec![0, 0, 0, 4, 0, 3, 0, 0], "08P01", "length"),
        (vec![0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0], "08P01", "length"),
        (vec![0, 0, 0, 9, 0, 3, 0, 0, 7], "08P01", "terminator"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "08P01", "length"),
        (vec![0x16, 3, 1, 0, 200, 1, 0, 0], "0A000", "direct TLS"),
    ];
    for (packet, code, word) in refused {
        let mut wire = knock(house);
        wire.send(&packet).unwrap();
        let reply = wire.reply();
        assert_eq!((reply.code(), reply.ended), (code, Ended::Closed), "{packet:?}: {reply:?}");
        assert_eq!(reply.error().severity, "FATAL", "{reply:?}");
        assert!(reply.error().message.contains(word), "{word}: {reply:?}");
    }
}

/// What is slipped in behind a wish for TLS, where there is none, is the next first packet; a
/// client that only ever wishes is sent away.
fn wishes_without_end(house: &House) {
    let mut wire = knock(house);
    wire.send(&[SSL, &startup(3, 0, WHO)].concat()).unwrap();
    assert_eq!(one_byte(&mut wire), b'N');
    assert_eq!(wire.reply().ended, Ended::Ready('I'));
    let mut wire = knock(house);
    wire.send(&SSL.repeat(6)).unwrap();
    for _ in 0..4 {
        assert_eq!(one_byte(&mut wire), b'N');
    }
    let reply = wire.reply();
    assert_eq!((reply.code(), reply.ended), ("08P01", Ended::Closed), "{reply:?}");
}

/// Whoever does not get done with its login is closed in time, however it dawdles.
fn slow_ones(house: &House) {
    let whole = startup(3, 0, WHO);
    let mut dawdlers = Vec::new();
    for bytes in [0, 1, 3, 4, 8, whole.len() - 1] {
        let mut wire = knock(house);
        wire.send(&whole[..bytes]).unwrap();
        dawdlers.push(wire);
    }
    let drip = std::thread::spawn({
        let mut wire = knock(house);
        let whole = whole.clone();
        move || {
            for byte in whole {
                if wire.send(&[byte]).is_err() {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(300));
            }
            wire.reply().ended == Ended::Closed
        }
    });
    let began = clock::now();
    for wire in &mut dawdlers {
        let reply = wire.reply();
        assert_eq!(reply.ended, Ended::Closed, "{reply:?}");
    }
    assert!(clock::now().since(began) < Duration::from_secs(30), "closed by their time limit");
    assert!(drip.join().unwrap(), "a byte now and then does not help");
}
