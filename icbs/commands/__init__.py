"""The console command's subcommands, one module a group."""
