// Line icons, drawn here: 24 by 24, in the colour of the text.

const PATHS = {
  add: "M12 5v14M5 12h14",
  branchBack: "M14 6l-6 6 6 6",
  branchOn: "M10 6l6 6-6 6",
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM15 9V5H5v11h4",
  down: "M12 5v14M6 13l6 6 6-6",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  export: "M12 15V4M8 8l4-4 4 4M5 15v5h14v-5",
  import: "M12 4v11M8 11l4 4 4-4M5 15v5h14v-5",
  menu: "M4 7h16M4 12h16M4 17h16",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  next: "M5 5l9 7-9 7zM18 5v14",
  regenerate: "M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6",
  remove: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14M16.5 16.5L21 21",
  send: "M12 19V5M6 11l6-6 6 6",
  setup: "M4 7h9M17 7h3M15 4.5v5M4 17h3M11 17h9M9 14.5v5",
  thought: "M9 18h6M10 21h4M12 3a6 6 0 0 0-3.5 10.9c.6.5 1 1.2 1 2.1h5c0-.9.4-1.6 1-2.1A6 6 0 0 0 12 3",
  tool: "M14.5 6.5a4 4 0 0 1 5-1l-2.7 2.7.5 2 2 .5 2-2a4 4 0 0 1-5.5 4.6L9 20a2 2 0 0 1-3-3l6.7-6.7a4 4 0 0 1 1.8-3.8",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** A button that is an icon, with its name for a pointer that waits and for those who do not see it. */
export function IconButton(props: {
  icon: IconName;
  label: string;
  onClick: () => void;
  class?: string;
  disabled?: boolean;
  expanded?: boolean;
}) {
  return (
    <button
      type="button"
      class={`icon-button ${props.class ?? ""}`}
      aria-label={props.label}
      title={props.label}
      disabled={props.disabled}
      aria-expanded={props.expanded}
      onClick={props.onClick}
    >
      <Icon name={props.icon} />
    </button>
  );
}

export function Logo() {
  return (
    <svg class="logo" viewBox="0 0 32 32" aria-hidden="true">
      <path
        class="logo-fruit"
        d="M16 10c-2-1.600-4.200-2.200-6.200-1.500C6.500 9.600 5 13 5.400 17c.5 5.200 3.600 10.500 7 10.500 1.400 0 2.200-.7 3.600-.7s2.200.7 3.600.7c3.400 0 6.500-5.300 7-10.500.4-4-1.100-7.400-4.400-8.500-2-.7-4.200-.100-6.200 1.500z"
      />
      <path class="logo-leaf" d="M16.500 8.500c0-3.600 2.400-6 6-6 0 3.600-2.400 6-6 6z" />
    </svg>
  );
}
