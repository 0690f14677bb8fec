# What limit_req_zone and limit_req accept with `sync`, and without it through nginx's own module, and that every mistake is
# refused with a message that names the directive, the file and the line.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

sub http { return { http => $_[0] } }
my $zone = 'limit_req_zone $arg_k zone=one:1m rate=1r/s sync;';

# Accepted.
config_works(http($zone), 'a shared zone');
config_works(http('limit_req_zone sync zone=one:1m rate=1r/s;'), 'nginx\'s own with the key "sync"');
config_works(http('limit_req_zone sync zone=one:1m rate=1r/s sync;'), '... and a shared one');
config_works(http('limit_req_zone $arg_k sync rate=30r/m zone=one:32k;'), 'parameters in any order');
config_works(http('limit_req_zone ${binary_remote_addr} zone=default/zone1_sync:10m rate=200r/s sync;'), 'what others generate');
config_works(http("limit_req zone=one; $zone server { limit_req zone=one burst=5 nodelay; location / { limit_req zone=one burst=5 delay=2; } }"),
    'limit_req before its zone and after it, on every level');
config_works(http("$zone server { limit_req_status 429; limit_req_log_level warn; location / { limit_req_dry_run on; } }"), 'nginx\'s other directives');
config_works(http("$zone limit_req_zone \$arg_k zone=two:1m rate=1r/s; server { limit_req zone=two; limit_req zone=one; }"), 'both kinds on one level');
config_works({ modules => ['zonemesh'], http => $zone }, 'without the stream module');

# The same mistakes with nginx's own and with ours.
my @mistakes = (
    [ 'limit_req_zone $arg_k zone=two:1m SYNC;',                        'no rate',            qr/limit_req_zone/ ],
    [ 'limit_req_zone $arg_k rate=1r/s SYNC;',                          'no zone',            qr/limit_req_zone/ ],
    [ 'limit_req_zone $arg_k zone=two rate=1r/s SYNC;',                 'no size',            qr/two/, qr/size/ ],
    [ 'limit_req_zone $arg_k zone=two:8k rate=1r/s SYNC;',              'too small',          qr/two/, qr/too small/ ],
    [ 'limit_req_zone $arg_k zone=two:x rate=1r/s SYNC;',               'a bad size',         qr/two/, qr/size/ ],
    [ 'limit_req_zone $arg_k zone=two:1m rate=0r/s SYNC;',              'a rate of zero',     qr/invalid rate "rate=0r\/s"/ ],
    [ 'limit_req_zone $arg_k zone=two:1m rate=xr/s SYNC;',              'a bad rate',         qr/invalid rate "rate=xr\/s"/ ],
    [ 'limit_req_zone $arg_k zone=two:1m rate=1r/s sink SYNC;',         'an unknown parameter', qr/limit_req_zone/ ],
    [ 'limit_req_zone $nothing zone=two:1m rate=1r/s SYNC;',            'an unknown variable', qr/nothing/ ],
    [ 'limit_req_zone $arg_k zone=two:1m rate=1r/s SYNC; limit_req_zone $arg_j zone=two:1m rate=1r/s SYNC;', 'a zone twice', qr/"two"/, qr/already/ ],
    [ 'TWO limit_req zone=two burst=0;',    'a burst of zero',     qr/invalid burst value "burst=0"/ ],
    [ 'TWO limit_req zone=two burst=x;',    'a bad burst',         qr/invalid burst value "burst=x"/ ],
    [ 'TWO limit_req zone=two delay=-1;',   'a bad delay',         qr/invalid delay value "delay=-1"/ ],
    [ 'TWO limit_req zone=two nodelays;',   'an unknown parameter of limit_req', qr/invalid parameter "nodelays"/ ],
    [ 'TWO limit_req zone=two; limit_req zone=two burst=5;', 'a limit twice', qr/"limit_req" directive is duplicate/ ],
    [ 'TWO limit_req burst=5;',             'a limit without a zone', qr/"limit_req" must have "zone" parameter/ ],
    [ 'TWO limit_req zone=three;',          'a limit of an unknown zone', qr/"three"/ ],
    [ 'TWO limit_req_status 200;',          'a status that is none', qr/limit_req_status|value must be/ ],
);
for (@mistakes) {
    my ($text, $name, @patterns) = @$_;
    for my $sync ('', 'sync') {
        my $lines = $text =~ s/TWO/limit_req_zone \$arg_k zone=two:1m rate=1r\/s SYNC;/r;
        config_fails(http($lines =~ s/SYNC/$sync/gr), \@patterns, $sync ? "$name, shared" : $name);
    }
}
config_fails(http("$zone limit_req_zone \$arg_k zone=one:1m rate=1r/s;"), [qr/"one"/, qr/different use/], 'one name for both kinds');
config_fails(http("limit_req_zone \$arg_k zone=one:1m rate=1r/s; $zone"), [qr/"one"/, qr/another directive/], '... the other way round');
config_fails(http("$zone keyval_zone zone=one:1m;"), [qr/"one"/, qr/already/], 'a name that limits have taken');
config_fails(http("keyval_zone zone=one:1m; $zone"), [qr/"one"/, qr/already/], '... or key-values');
config_fails(http("$zone keyval \$arg_a \$b zone=one;"), [qr/unknown zone "one"/], 'a keyval on limits');
config_fails(http("limit_req_zone \$arg_k zone=one:1m rate=1r/s sync sync sync;"), [qr/number of arguments in "limit_req_zone"/], 'too many parameters');
config_works(http("$zone limit_req zone=one burst=4294967;"), 'the largest burst of a shared zone');
config_fails(http("$zone limit_req zone=one burst=4294968;"), [qr/invalid burst value "burst=4294968"; .* 4294967/], '... and one more');

# Kept lines keep their place.
my $node = node(http => "$zone\ninclude more.conf;\n");
$node->write_file('more.conf', "server {\n    location / {\n        limit_req zone=one burst=none;\n    }\n}\n");
my ($ok, $said) = $node->check;
ok(!$ok, 'a mistake in an included file');
like($said, qr{invalid burst value "burst=none".* in \S*more\.conf:3$}m, '... is told with its file and line');
$node->write_file('more.conf', "server {\n\n    limit_req zone=plain burst=none;\n}\nlimit_req_zone \$arg_k zone=plain:1m rate=1r/s;\n");
($ok, $said) = $node->check;
ok(!$ok, '... and one that nginx finds');
like($said, qr{invalid burst value "burst=none" in \S*more\.conf:3$}m, '... too');
$node->write_file('more.conf', "server {\n\n    limit_req zone=plain;\n    limit_req zone=plain;\n}\nlimit_req_zone \$arg_k zone=plain:1m rate=1r/s;\n");
($ok, $said) = $node->check;
like($said, qr{"limit_req" directive is duplicate in \S*more\.conf:4$}m, '... and what is twice');

# Reloads that can't be.
$node->configure(http => "$zone server { listen 127.0.0.1:%%PORT%%; limit_req zone=one; root /; }")->start;
allow_log(qr/previously it used|more\.conf/);
$node->configure(http => $node->{http} =~ s/arg_k/arg_j/r);
$node->signal('HUP');
ok(scalar $node->wait_log(qr/"one" in \S+ uses the "\$arg_j" key while previously it used the "\$arg_k" key/), 'another key for a zone that is there is refused');
$node->configure(http => $node->{http} =~ s/sync;/;/r);
$node->reload;
pass('a zone may become nginx\'s own');

done_testing;
