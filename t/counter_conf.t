# What type=counter and keyval_incr accept, and that every mistake is refused with a message that says what to do.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

my $zone = 'keyval_zone zone=hits:1m type=counter timeout=1h;';
sub http { return { http => $_[0] } }
sub incr { return http("$zone $_[0]") }

config_works(http('keyval_zone zone=hits:1m type=counter timeout=1h sync; keyval $uri $hits zone=hits;'), 'a zone of counters');
config_works(incr('keyval_incr $uri zone=hits;'), 'keyval_incr in http');
config_works(incr('server { keyval_incr "all of $host" zone=hits by=-3 if=$arg_a; location / { keyval_incr x zone=hits; if ($arg_b) { keyval_incr y zone=hits; } } }'),
    'in server, location and if');
config_works(incr('keyval_incr $uri zone=hits; keyval_incr $host zone=hits by=$request_length;'), 'several, and by= with a variable');
config_works(http("keyval_incr \$uri zone=hits; $zone"), 'before its zone');
config_works({ http => 'keyval_incr $uri zone=hits;', stream => $zone }, 'of a zone that is declared in stream');

my @mistakes = (
    [ http('keyval_zone zone=hits:1m type=counter evict;'), 'evict', qr/"hits"/, qr/"evict" beside "type=counter"/ ],
    [ http('keyval_zone zone=hits:1m evict type=counter;'), 'evict before it', qr/"evict" beside "type=counter"/ ],
    [ http('keyval_zone zone=hits:1m type=counters;'), 'another type', qr/unknown type "counters"/, qr/"counter"/ ],
    [ incr('keyval_incr $uri;'), 'no zone', qr/number of arguments in "keyval_incr"/ ],
    [ incr('keyval_incr $uri by=1;'), 'no zone, but by=', qr/"keyval_incr" has no zone/ ],
    [ incr('keyval_incr $uri zone=;'), 'an empty zone', qr/empty "zone="/ ],
    [ incr('keyval_incr $uri zone=hits zone=hits;'), 'two zones', qr/second "zone="/ ],
    [ incr('keyval_incr $uri zone=hits by=1 by=2;'), 'two numbers', qr/second "by="/ ],
    [ incr('keyval_incr $uri zone=hits if=1 if=2;'), 'two conditions', qr/second "if="/ ],
    [ incr('keyval_incr $uri zone=hits by=x;'), 'no number', qr/bad "by=x"/, qr/whole number/ ],
    [ incr('keyval_incr $uri zone=hits by=1.5;'), 'a fraction', qr/bad "by=1\.5"/ ],
    [ incr('keyval_incr $uri zone=hits by=9223372036854775808;'), 'too large a number', qr/bad "by=9223372036854775808"/ ],
    [ incr('keyval_incr $uri zone=hits bogus;'), 'an unknown parameter', qr/"bogus"/, qr/known are zone=, by= and if=/ ],
    [ incr('keyval_incr $nowhere zone=hits;'), 'an unknown variable', qr/unknown "nowhere" variable/ ],
    [ incr('keyval_incr $uri zone=hits by=$nowhere;'), 'an unknown variable in by=', qr/unknown "nowhere" variable/ ],
    [ http('keyval_incr $uri zone=gone;'), 'a zone that is nowhere', qr/unknown zone "gone" of "keyval_incr"/ ],
    [ http('keyval_zone zone=one:1m; keyval_incr $uri zone=one;'), 'a zone that does not count', qr/zone "one" of "keyval_incr" is of type=string/, qr/type=counter/ ],
    [ incr('server { location / { limit_except GET { keyval_incr $uri zone=hits; } } }'), 'in limit_except', qr/"keyval_incr" directive is not allowed here/ ],
);
config_fails($_->[0], [ @$_[ 2 .. $#$_ ] ], $_->[1]) for @mistakes;
config_fails({ stream => "$zone server { keyval_incr x zone=hits; }" }, qr/"keyval_incr" directive is not allowed here/, 'in stream');

# The type of a zone in use stays.
{
    my $conf = sub { return "keyval_zone zone=one:1m$_[0]; server { listen 127.0.0.1:%%PORT%%; location /api { api write=on; } }" };
    my $node = node(http => $conf->(''))->start;
    $node->add('one', 'k', '5');
    $node->configure(http => $conf->(' type=counter'));
    $node->signal('HUP');
    ok(scalar $node->wait_log(qr/\[emerg\].*"one".*type/), 'another type on a reload is refused');
    is($node->keyvals('one')->{k}, '5', '... and all goes on');
    allow_log(qr/\[emerg\].*"one".*type/);
}

done_testing;
