# What keyval and keyval_zone accept, and that every mistake is refused with a message that names the directive, what is
# meant, and what to do.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

sub http { return { http => $_[0] } }

# Accepted.

config_works(http('keyval_zone zone=one:32k;'), 'the smallest zone');
config_works(http('keyval_zone zone=one:1m type=string timeout=30s sync;'), 'all parameters that exist');
config_works(http('keyval_zone zone=one:1m type=ip evict; keyval_zone zone=two:1m type=prefix sync;'), 'types and evict');
config_works(http('keyval_zone zone=one:1M timeout=1h;'), 'sizes as the guide writes them');
config_works(http('keyval_zone zone=one:1m ttl=1d;'), 'ttl');
config_works(http('keyval_zone zone=one:1m sync;'), 'sync without a timeout and without zone_sync');
config_works(http('keyval $arg_a $v zone=one; keyval_zone zone=one:64k;'), 'keyval before its zone');
config_works(http('keyval_zone zone=one:64k; keyval $arg_a $v zone=one; keyval $arg_b $w zone=one;'),
    'two variables of one zone');
config_works(
    http('keyval_zone zone=vs_default_cafe_1:100k; keyval "vs_cafe" $vs zone=vs_default_cafe_1;
          keyval $remote_addr:$http_user_agent $seen zone=vs_default_cafe_1;'),
    'what others generate'
);
config_works(
    http(join "\n", 'keyval_zone zone=one:64k;', map { "keyval \$arg_a \$v$_ zone=one;" } 1 .. 200),
    'many variables'
);

# keyval_zone.

my @zone_mistakes = (
    [ 'keyval_zone;', 'no parameter', qr/number of arguments in "keyval_zone"/ ],
    [ 'keyval_zone timeout=1h;',       'no zone',        qr/"keyval_zone"/, qr/zone=/ ],
    [ 'keyval_zone zone=one;',         'no size',        qr/"one"/, qr/size/ ],
    [ 'keyval_zone zone=one:;',        'an empty size',  qr/"one/, qr/size/ ],
    [ 'keyval_zone zone=:1m;',         'an empty name',  qr/keyval_zone/, qr/name/ ],
    [ 'keyval_zone zone=one:65g;',     'a size too large', qr/"one/, qr/too large/ ],
    [ 'keyval_zone zone=one:abc;',     'a bad size',     qr/"one/, qr/size/ ],
    [ 'keyval_zone zone=one:-1m;',     'a negative size', qr/"one/, qr/size/ ],
    [ 'keyval_zone zone=one:31k;',     'too small',      qr/"one"/, qr/too small/, qr/32k/ ],
    [ 'keyval_zone zone=one:1m zone=two:1m;', 'two zones', qr/keyval_zone/, qr/zone/, qr/duplicate|twice|once|already|second/ ],
    [ 'keyval_zone zone=one:1m bogus;',   'an unknown parameter',   qr/keyval_zone/, qr/"bogus"/ ],
    [ 'keyval_zone zone=one:1m bogus=1;', 'an unknown parameter with a value', qr/keyval_zone/, qr/"bogus=1"/ ],
    [ 'keyval_zone zone=one:1m synchro;', 'an unknown parameter that begins like a known one', qr/keyval_zone/, qr/"synchro"/ ],
    [ 'keyval_zone zone=one:1m timeout=1h ttl=1h;', 'both timeout and ttl', qr/timeout/, qr/ttl/, qr/"one"/ ],
    [ 'keyval_zone zone=one:1m ttl=1h timeout=2h;', 'both ttl and timeout', qr/timeout/, qr/ttl/, qr/"one"/ ],
    [ 'keyval_zone zone=one:1m timeout=soon;', 'a bad timeout',   qr/keyval_zone|"one"/, qr/timeout/, qr/soon/ ],
    [ 'keyval_zone zone=one:1m timeout=;',     'an empty timeout', qr/keyval_zone|"one"/, qr/timeout/ ],
    [ 'keyval_zone zone=one:1m timeout=0;',    'a timeout of zero', qr/keyval_zone|"one"/, qr/timeout/ ],
    [ 'keyval_zone zone=one:1m ttl=1x;',       'a bad ttl',       qr/keyval_zone|"one"/, qr/ttl/, qr/1x/ ],
    [ 'keyval_zone zone=one:1m; keyval_zone zone=one:1m;', 'a zone declared twice', qr/"one"/, qr/already|duplicate|twice/ ],
    [ 'keyval_zone zone=one:1m; keyval_zone zone=one:2m;', '... with another size', qr/"one"/ ],
    [ 'limit_req_zone $uri zone=one:1m rate=1r/s; keyval_zone zone=one:1m;', 'a name that another directive has taken', qr/"one"/ ],
    [ 'keyval_zone zone=one:1m type=tree;', 'an unknown type', qr/type/, qr/tree/ ],
    [ 'keyval_zone zone=one:1m type=;',     'an empty type', qr/"one"/, qr/unknown type/ ],
    [ 'keyval_zone zone=one:1m type=ip type=prefix;', 'two types', qr/"one"/, qr/second "type=prefix"/ ],
    [ 'keyval_zone zone=one:1m state=;', 'an empty state', qr/"one"/, qr/empty "state="/, qr/name a file/ ],
    [ 'keyval_zone zone=one:1m state=a.json state=b.json;', 'two states', qr/"one"/, qr/second "state=b\.json"/ ],
    [ 'keyval_zone zone=two:1m state=tmp/a.json; keyval_zone zone=one:1m state=tmp/../tmp/a.json;', 'two zones with one state file',
        qr/"one"/, qr/"two"/, qr{tmp/a\.json} ],
    [ 'keyval_zone zone=one:1m evict=on;', 'evict with a value', qr/"one"/, qr/"evict=on"/ ],
    [ 'server { keyval_zone zone=one:1m; }', 'in a server', qr/"keyval_zone" directive is not allowed here/ ],
);

# keyval.

my $zone = 'keyval_zone zone=one:1m;';
my @keyval_mistakes = (
    [ "$zone keyval;",                        'no parameter',       qr/number of arguments in "keyval"/ ],
    [ "$zone keyval \$arg_a \$v;",            'no zone',            qr/"keyval"/ ],
    [ "$zone keyval \$arg_a v zone=one;",     'no variable',        qr/"keyval"|"v"/, qr/variable|\$/ ],
    [ "$zone keyval \$arg_a \$ zone=one;",    'a variable without a name', qr/"keyval"|"\$"/, qr/variable/ ],
    [ "$zone keyval \$arg_a \$v zone=;",      'an empty zone name', qr/keyval/, qr/zone/ ],
    [ "$zone keyval \$arg_a \$v zone=two;",   'an unknown zone',    qr/keyval/, qr/"two"/, qr/keyval_zone/ ],
    [ "keyval \$arg_a \$v zone=two; $zone",   'an unknown zone, with its line', qr/"two"/, qr/nginx\.conf:\d+/ ],
    [ "$zone keyval \$arg_a \$v zone=one:1m;", 'a size where there is none', qr/keyval/ ],
    [ "$zone keyval \$arg_a \$v area=one;",   'an unknown parameter', qr/keyval/, qr/area=one/ ],
    [ "$zone keyval \$arg_a \$v zone=one x;", 'too much',           qr/"keyval"|"x"/ ],
    [ "$zone keyval \$arg_a \$uri zone=one;", 'a variable that nginx has', qr/uri/ ],
    [ "$zone keyval \"\${arg_a\" \$v zone=one;", 'an unclosed brace', qr/arg_a/ ],
    [ "$zone server { keyval \$arg_a \$v zone=one; }", 'in a server', qr/"keyval" directive is not allowed here/ ],
);

for (@zone_mistakes)   { my ($conf, $name, @patterns) = @$_; config_fails(http($conf), \@patterns, "keyval_zone: $name") }
for (@keyval_mistakes) { my ($conf, $name, @patterns) = @$_; config_fails(http($conf), \@patterns, "keyval: $name") }

# Elsewhere.

config_fails(http('server { location / { api on; } }'),        [ qr/api/, qr/"on"/ ],          'api: an unknown parameter');
config_fails(http('server { location / { api write=perhaps; } }'), [ qr/api/, qr/perhaps/ ],   'api: write is on or off');
config_fails(http('server { api; }'), qr/"api" directive is not allowed here/,                   'api: in a server');
config_fails(http('server { location / { api; api write=on; } }'), qr/"api".*duplicate/, 'api: twice');
config_works(http('server { location / { api; } location = /a { api write=on; } location /b { api write=off; } }'), 'api: as it should be');

done_testing;
