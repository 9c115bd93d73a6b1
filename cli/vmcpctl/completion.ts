// `vmcpctl completion`: what a shell is told so that it asks vmcpctl what can come next.

export const shells = ["bash", "zsh", "fish"] as const;

export type Shell = (typeof shells)[number];

/** Text to be sourced. Errors of vmcpctl do not reach the line that is being typed. */
export const completionScripts: Readonly<Record<Shell, string>> = {
  bash: `# Put this into ~/.bashrc:  source <(vmcpctl completion bash)
_vmcpctl() {
  local IFS=$'\\n'
  COMPREPLY=( $(vmcpctl __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null) )
}
complete -o default -F _vmcpctl vmcpctl
`,
  zsh: `#compdef vmcpctl
# Put this into ~/.zshrc, after compinit:  source <(vmcpctl completion zsh)
_vmcpctl() {
  local -a offers
  offers=( "\${(@f)$(vmcpctl __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}" )
  compadd -a offers
}
compdef _vmcpctl vmcpctl
`,
  fish: `# Put this into ~/.config/fish/completions/vmcpctl.fish:  vmcpctl completion fish
complete -c vmcpctl -f -a '(set -l words (commandline -opc) (commandline -ct); vmcpctl __complete -- $words[2..-1] 2>/dev/null)'
`,
};
