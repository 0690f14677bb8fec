# The examples of docs/migrating.md do what it says: they are taken out of the document and run.

use FindBin;
use lib "$FindBin::Bin/lib";
use ZoneMesh;

# The indented blocks, each cut at its comments "# before", "# after": a list of [what the comment says, text].
my $document = ZoneMesh::Node::slurp("$FindBin::Bin/../docs/migrating.md");
my @examples;
for my $block ($document =~ /^((?:    \S[^\n]*\n|[ ]{5,}\S[^\n]*\n|\n(?=    ))+)/mg) {
    $block =~ s/^    //mg;
    $block =~ s/\A\n+//;
    push @examples, map { /\A# ([^\n]*)\n(.*)\z/s ? [ $1, $2 ] : [ '', $_ ] } split /^(?=# (?:before|after))/m, $block;
}

# The one example that matches.
sub example {
    my ($pattern, $marked) = @_;
    my @found = map { $_->[1] } grep { $_->[1] =~ $pattern && $_->[0] =~ ($marked // qr//) } @examples;
    die scalar(@found) . " examples match $pattern" if @found != 1;
    return $found[0];
}

# Its lines for `http`, and those for a server.
sub parts {
    my ($text) = @_;
    my @lines = split /^/, $text;
    return (join('', grep { /^keyval/ } @lines), join('', grep { !/^keyval/ } @lines));
}

my $api = 'location /api { api write=on; }';

subtest 'from the commercial nginx' => sub {
    my ($load) = example(qr/load_module/);
    my @lines = $load =~ /^load_module (\S+);/mg;
    is(scalar @lines, 2, 'modules to load');
    like(module_path($_), qr/\.so\z/, "$_ is one that there is") for @lines;
    my $conf = { http => "keyval_zone zone=sessions:1m timeout=1h;\nserver { listen 127.0.0.1:%%PORT%%; client_max_body_size 16m; $api }" };
    my ($old, $new) = map { node(%$conf)->start } 1 .. 2;
    my %pairs = map { ("s$_" => "value \"$_\"") } 1 .. 500;
    is($old->post('/api/9/http/keyvals/sessions', ZoneMesh::Node::encode(\%pairs))->status, 201, 'an old node with contents');
    my $folder = $new->prefix;
    for my $command (example(qr/^curl http:/), example(qr/^curl -X POST/)) {
        chomp $command;
        $command =~ s{//(old|new)/}{ '//127.0.0.1:' . ($1 eq 'old' ? $old : $new)->port . '/' }ge;
        is(system("cd '$folder' && $command --fail -sS"), 0, $command);
    }
    is_deeply($new->keyvals('sessions'), \%pairs, 'the new node has them');
};

subtest 'from the open keyval module in C' => sub {
    my ($same) = parts(example(qr/ttl=1h;\nkeyval \$remote_addr/));
    my $node = node(http => "$same\nserver { listen 127.0.0.1:%%PORT%%; $api location / { return 200 \"[\$class]\"; } }")->start;
    is($node->get('/')->body, '[]', 'nobody is known');
    is($node->add('clients', '127.0.0.1', 'known'), 201, 'a client is added');
    is($node->get('/')->body, '[known]', '... and known');
    my ($shared) = parts(example(qr/^keyval_zone zone=clients:1m timeout=1h sync;/, qr/after/));
    config_works({ http => $shared }, 'a zone in the place of Redis');
};

subtest 'from lua_shared_dict to variables' => sub {
    my ($zones, $server) = parts(example(qr/^if \(\$user = ""\)/m, qr/after/));
    my $node = node(http => "$zones\nserver { listen 127.0.0.1:%%PORT%%; $api location / { $server\n return 200 \"\$user\"; } }")->start;
    is($node->get('/')->status, 403, 'nobody without a session');
    is($node->add('sessions', 'abc', 'alice'), 201, 'a session');
    my $answer = $node->get('/', headers => { Cookie => 'session=abc' });
    is_deeply([ $answer->status, $answer->body ], [ 200, 'alice' ], 'is let in');
    is($node->get('/', headers => { Cookie => 'session=other' })->status, 403, 'another is not');
};

subtest 'Lua goes on' => sub {
    plan(skip_all => 'no Lua module for this nginx') if grep { !-e ZoneMesh::Node::module_file($_) } qw(ndk lua);
    my $lua = example(qr/ngx\.var\.session = value/);
    my ($comment) = map { $_->[0] } grep { $_->[1] eq $lua } @examples;
    my ($keyval, $set) = $comment =~ /"(keyval [^"]*)" and "(set [^"]*)"/ or die "the comment names no directives: $comment";
    like($lua, qr/^ngx\.var\.session = nil/m, 'the last line deletes');
    my ($sets, $deletes) = $lua =~ /\A(.*?)^(ngx\.var\.session = nil.*)\z/ms;
    my $node = node(modules => [qw(ndk lua stream zonemesh)], http => <<"CONF")->start;
        keyval_zone zone=sessions:1m timeout=1h;
        $keyval
        server {
            listen 127.0.0.1:%%PORT%%;
            $set
            $api
            location /set    { content_by_lua_block { local key, value = ngx.var.arg_k, ngx.var.arg_v
                $sets ngx.print("[", value, "]") } }
            location /delete { content_by_lua_block { ngx.var.session_key = ngx.var.arg_k
                $deletes ngx.print("[", ngx.var.session, "]") } }
        }
CONF
    is($node->get('/set?k=s1&v=alice')->body, '[alice]', 'a value is written and read');
    is($node->keyvals('sessions')->{s1}, 'alice', '... in the zone');
    is($node->get('/delete?k=s1')->body, '[]', 'and deleted: then it is an empty string');
    is_deeply($node->keyvals('sessions'), {}, '... in the zone');
};

done_testing;

# The file of a module by the path that a configuration has.
sub module_path {
    my ($path) = @_;
    return ZoneMesh::Node::module_file($path =~ /zonemesh/ ? 'zonemesh' : $path =~ /stream/ ? 'stream' : die "which module is $path?");
}
