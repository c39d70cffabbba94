# As much of nixpkgs' `lib` as nix/module.nix needs, to evaluate it where nixpkgs is not at hand.
# Written for that; no copy. It knows priorities, conditions and merging, and the types used there.
# Whatever else the module may come to use is missing here, and its evaluation fails loudly.
let
  inherit (builtins)
    all attrNames concatLists concatMap concatStringsSep elem filter foldl' hasAttr head isAttrs
    isBool isFunction isInt isList isPath isString length listToAttrs map mapAttrs match removeAttrs
    replaceStrings stringLength substring toString;

  kind = value: if isAttrs value then value._type or "" else "";
  show = path: concatStringsSep "." path;
  fail = path: what: throw "The option `${show path}' ${what}";
  isOption = value: kind value == "option";
  unique = foldl' (found: item: if elem item found then found else found ++ [ item ]) [ ];

  # Conditions and priorities of a set become those of its members, without being looked at.
  pushDown = value:
    let t = kind value; in
    if t == "merge" then concatMap pushDown value.contents
    else if t == "if" then map (mapAttrs (_: lib.mkIf value.condition)) (pushDown value.content)
    else if t == "override" then
      map (mapAttrs (_: lib.mkOverride value.priority)) (pushDown value.content)
    else [ value ];

  # The values of a definition, each with its priority.
  discharge = value:
    let t = kind value; in
    if t == "merge" then concatMap discharge value.contents
    else if t == "if" then (if value.condition then discharge value.content else [ ])
    else if t == "override" then
      map (item: { inherit (item) content; inherit (value) priority; }) (discharge value.content)
    else [ { priority = 100; content = value; } ];

  strongest = items:
    let
      best = foldl' (least: item: if item.priority < least then item.priority else least) 9999
        items;
    in
    map (item: item.content) (filter (item: item.priority == best) items);

  mergeDefinitions = path: type: definitions:
    let
      values = strongest (concatMap discharge definitions);
      bad = filter (value: !(type.check value)) values;
    in
    if bad != [ ] then fail path "is not of type `${type.description}': ${builtins.toJSON bad}"
    else type.merge path values;

  mergeEqual = path: values:
    if all (value: value == head values) values then head values
    else fail path "has conflicting definitions: ${builtins.toJSON values}";

  mergeAttrs = type: path: sets:
    listToAttrs (concatMap
      (name:
        let definitions = map (set: set.${name}) (filter (hasAttr name) sets); in
        # One whose conditions are all false is not there.
        if concatMap discharge definitions == [ ] then [ ]
        else [ { inherit name; value = mergeDefinitions (path ++ [ name ]) type definitions; } ])
      (unique (concatMap attrNames sets)));

  mkType = description: check: merge: { inherit description check merge; };
  scalar = description: check: mkType description check mergeEqual;

  evalOptions = path: options: definitions:
    let
      sets = concatMap pushDown definitions;
      unknown = filter (name: !(hasAttr name options)) (unique (concatMap attrNames sets));
      member = name: option:
        let
          here = path ++ [ name ];
          given = map (set: set.${name}) (filter (hasAttr name) sets);
          default = if option ? default then [ (lib.mkOverride 1500 option.default) ] else [ ];
          # Only to learn whether there is one may conditions be looked at.
          defined = concatMap discharge given != [ ];
        in
        if !(isOption option) then evalOptions here option given
        else if !defined && default == [ ] then fail here "is used but not defined"
        else mergeDefinitions here option.type (given ++ default);
    in
    if unknown != [ ] then fail (path ++ [ (head unknown) ]) "does not exist"
    else mapAttrs member options;

  mergeOptions = one: other:
    one // mapAttrs
      (name: value:
        if hasAttr name one && !(isOption value) then mergeOptions one.${name} value
        else if hasAttr name one then throw "The option `${name}' is declared twice"
        else value)
      other;

  types = rec {
    str = scalar "string" isString;
    bool = scalar "boolean" isBool;
    int = scalar "signed integer" isInt;
    path = scalar "absolute path" (value: isPath value || (isString value && lib.hasPrefix "/" value));
    package = scalar "package" (value: isAttrs value && value.type or "" == "derivation");
    ints.between = low: high:
      scalar "integer between ${toString low} and ${toString high}"
        (value: isInt value && value >= low && value <= high);
    enum = values: scalar "one of ${builtins.toJSON values}" (value: elem value values);
    strMatching = pattern:
      scalar "string matching the pattern ${pattern}"
        (value: isString value && match pattern value != null);
    nullOr = type: mkType "null or ${type.description}"
      (value: value == null || type.check value)
      (path: values:
        if all (value: value == null) values then null
        else type.merge path (filter (value: value != null) values));
    listOf = type: mkType "list of ${type.description}" isList
      (path: values: map (value: mergeDefinitions path type [ value ]) (concatLists values));
    attrsOf = type: mkType "attribute set of ${type.description}" isAttrs (mergeAttrs type);
    submodule = module: mkType "submodule" isAttrs
      (path: sets: evalOptions path module.options sets);
    anything = mkType "anything" (_: true) (path: values:
      if all (value: isAttrs value && !(value ? outPath)) values then mergeAttrs anything path values
      else if all isList values then concatLists values
      else mergeEqual path values);
  };

  lib = {
    inherit types;
    inherit (builtins)
      all any attrNames attrValues concatLists concatMap concatStringsSep elem filter length map
      mapAttrs;

    mkOption = declaration: declaration // { _type = "option"; };
    mkEnableOption = what: lib.mkOption {
      type = types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
    mkPackageOption = pkgs: name: _: lib.mkOption { type = types.package; default = pkgs.${name}; };
    mkOverride = priority: content: { _type = "override"; inherit priority content; };
    mkDefault = lib.mkOverride 1000;
    mkForce = lib.mkOverride 50;
    mkIf = condition: content: { _type = "if"; inherit condition content; };
    mkMerge = contents: { _type = "merge"; inherit contents; };

    mkRenamedOptionModule = from: to: { config, ... }: {
      options = lib.setAttrByPath from (lib.mkOption { type = types.anything; default = null; });
      config = lib.mkIf (lib.getAttrFromPath from config != null) (lib.mkMerge [
        (lib.setAttrByPath to (lib.getAttrFromPath from config))
        { warnings = [ "The option `${show from}' has been renamed to `${show to}'." ]; }
      ]);
    };

    optional = condition: value: if condition then [ value ] else [ ];
    optionals = condition: values: if condition then values else [ ];
    optionalAttrs = condition: values: if condition then values else { };
    optionalString = condition: text: if condition then text else "";
    hasPrefix = start: text: substring 0 (stringLength start) text == start;
    hasInfix = part: text: replaceStrings [ part ] [ "" ] text != text;
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    setAttrByPath = path: value:
      if path == [ ] then value
      else { ${head path} = lib.setAttrByPath (builtins.tail path) value; };
    getAttrFromPath = path: set: foldl' (found: name: found.${name}) set path;
    getExe = package: "${package}/bin/${package.meta.mainProgram}";
    genAttrs = names: f: listToAttrs (map (name: { inherit name; value = f name; }) names);
    makeBinPath = packages: concatStringsSep ":" (map (package: "${package}/bin") packages);
    fileset = { unions = files: files; toSource = { root, fileset }: fileset; };
    licenses.mit = "MIT";
    platforms.linux = [ "x86_64-linux" "aarch64-linux" ];
    importTOML = file: builtins.fromTOML (builtins.readFile file);

    evalModules = { modules, specialArgs ? { } }:
      let
        arguments = specialArgs // { inherit lib config options; };
        collect = module:
          let
            loaded = if isPath module || isString module then import module else module;
            body = if isFunction loaded then loaded arguments else loaded;
            long = body ? options || body ? config;
          in
          [ {
            options = body.options or { };
            config = if long then body.config or { } else removeAttrs body [ "_file" "imports" ];
          } ] ++ concatMap collect (body.imports or [ ]);
        everything = concatMap collect modules;
        options = foldl' mergeOptions { } (map (module: module.options) everything);
        config = evalOptions [ ] options (map (module: module.config) everything);
      in
      { inherit options config; };
  };
in
lib
