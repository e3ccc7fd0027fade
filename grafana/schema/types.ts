// What Grafana's own types say of a dashboard, with the panels that build.py makes: enums as the words that stand in
// JSON, options and field settings of each kind of panel, and the Prometheus data source's queries.
import type { AnnotationQuery, Dashboard, DataQuery, FieldConfig, Panel, RowPanel, VariableModel } from "@grafana/schema";
import type * as bars from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as states from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as lines from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

type Plain<T> = T extends string
  ? string extends T ? string : `${T}`
  : T extends number | boolean | null | undefined ? T
  : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> }
  : T;
type Deep<T> = T extends (infer U)[] ? Deep<U>[] : T extends object ? { [K in keyof T]?: Deep<T[K]> } : T;

type Query = DataQuery & { expr: string; legendFormat: string; editorMode: "code"; range: boolean; instant: boolean };
type Common = Omit<Plain<Panel>, "type" | "options" | "fieldConfig" | "targets"> & { id: number; description: string; targets: Plain<Query>[] };
type Field<Custom> = { defaults: Omit<Plain<FieldConfig>, "custom"> & { custom?: Plain<Deep<Custom>> }; overrides: [] };
type Of<Kind, Options, Custom> = Common & { type: Kind; options: Plain<Deep<Options>>; fieldConfig: Field<Custom> };
type Drawn =
  | Of<"timeseries", lines.Options, lines.FieldConfig>
  | Of<"state-timeline", states.Options, states.FieldConfig>
  | Of<"stat", stat.Options, never>
  | Of<"bargauge", bars.Options, never>
  | Plain<RowPanel>;
type Note = Omit<Plain<AnnotationQuery>, "target"> & { expr: string; step: string; titleFormat: string; textFormat: string };
type Variable = Omit<Plain<VariableModel>, "current"> & { current: { text?: string[]; value?: string[] } };

export type Checked = Omit<Plain<Dashboard>, "panels" | "annotations" | "templating"> & {
  panels: Drawn[];
  annotations: { list: Note[] };
  templating: { list: Variable[] };
};
